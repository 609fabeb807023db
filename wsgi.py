"""The WSGI application, as gunicorn finds it: ``gunicorn wsgi:app``."""

from webapp.application import create_app

app = create_app()
