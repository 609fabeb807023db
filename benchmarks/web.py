"""Compares unchanged polls with the original's ``GET /task/<id>``, and measures a large download."""

import http.client
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from benchmarks import baselines
from benchmarks.bulk import JOIN, MEBIBYTE, Peak, ours
from benchmarks.stack import Row, Servers, amount, fill, ratio
from development.servers import free_port
from worker_tasks import release
from worker_tasks.queue.celery_app import app

SECONDS = 5
CONNECTIONS = 16


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    if shutil.which("wrk") is None:
        print("wrk is not installed (apt install wrk), so polls are not measured")
    else:
        yield _polls(servers, repeats)
    yield from _download(servers, repeats)


def _polls(servers: Servers, repeats: int) -> Row:
    task_id = app.send_task("worker_tasks.tasks.long_running_task", ["x"], queue="unattended").id
    mine, theirs = [], []
    our_port, their_port = free_port(), free_port()
    gunicorn = f"exec gunicorn wsgi:app --bind 127.0.0.1:{our_port} --workers 2"
    uvicorn = f"exec uvicorn --factory benchmarks.baselines:web --port {their_port} --workers 2 --log-level warning"
    with servers.process(gunicorn, "Booting worker"):
        for _ in range(repeats):
            tag = tag_of(our_port, f"/tasks/{task_id}/status")
            mine.append(_rate(our_port, f"/tasks/{task_id}/status", f"HX-PTag: {tag}"))
    with servers.process(f"echo started; {uvicorn}", "started"):
        wait_for_answer(their_port)
        theirs += [_rate(their_port, f"/task/{task_id}") for _ in range(repeats)]
    return ratio("unchanged polls per second, two web processes, against the original", ">= 3", mine, theirs, "1/s")


def tag_of(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().headers["HX-PTag"]


def wait_for_answer(port: int) -> None:
    for _ in range(100):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/docs")
        except OSError:
            time.sleep(0.1)
        else:
            return


def _rate(port: int, path: str, *headers: str) -> float:
    options = [part for header in headers for part in ("-H", header)]
    line = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *options, f"http://127.0.0.1:{port}{path}"]
    output = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None or ("Non-2xx" in output and "HX-PTag" not in "".join(headers)):
        raise RuntimeError(output)
    return float(rate[1])


def _download(servers: Servers, repeats: int) -> Iterator[Row]:
    fill(baselines.mongodb().bench)
    port = free_port()
    with servers.worker(2):
        task = ours()
    growth, sizes = [], []
    gunicorn = f"exec gunicorn wsgi:app --bind 127.0.0.1:{port} --workers 1"
    with servers.process(gunicorn, "Booting worker") as process:
        tag_of(port, f"/tasks/{task['_id']}")
        for _ in range(repeats):
            with Peak(process) as peak:
                sizes.append(_read(port, f"/api/v1/tasks/{task['_id']}/result.json") / MEBIBYTE)
            growth.append(peak.growth)
    yield amount(f"{sizes[0]:.0f} MiB download of {JOIN['from']}, growth of the web process", "<= 30", growth, "MiB")


def _read(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    size = 0
    while chunk := answer.read(1024 * 1024):
        size += len(chunk)
    return size
