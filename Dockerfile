# One image for all three process types: docker run dovetail web (or release, or worker).
FROM python:3.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PORT=8000
WORKDIR /app

# Before the code, so that code changes do not reinstall the requirements.
COPY requirements.txt ./
RUN pip install --require-hashes --no-deps -r requirements.txt

COPY Procfile gunicorn.conf.py wsgi.py ./
COPY bin/run bin/run
COPY worker_tasks worker_tasks
COPY webapp webapp
COPY templates templates
COPY static static

RUN useradd --system --no-create-home dovetail
USER dovetail

EXPOSE 8000
ENTRYPOINT ["bin/run"]
CMD ["web"]
