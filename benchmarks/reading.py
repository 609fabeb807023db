"""Measures two simulated users who read 300,000 rows: durations, growth of the web process, and other users' polls."""

import http.client
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any
from urllib.parse import urlencode

from benchmarks import baselines
from benchmarks.bulk import Peak
from benchmarks.stack import Row, Servers, amount, fill, ratio, wait_until
from benchmarks.web import tag_of, wait_for_answer
from development.servers import free_port
from worker_tasks import release
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.results.formats import FORMATS
from worker_tasks.submission import read_join, submit_join

#: 300,000 orders, each with its user.
JOIN = {
    "database": "bench",
    "from": "orders",
    "match": {"amount": {"$lt": 1500}},
    "joins": [{"from": "users", "as": "user", "shape": "first", "on": [{"local": "userId", "foreign": "_id"}]}],
}
#: The pause between two actions of a person who reads quickly, in seconds.
PAUSE = 0.25
PAGES = 40
POLLERS, POLLS_A_SECOND, POLL_SECONDS = 8, 5, 20
QUERIES = {
    "sorted": {"sort": "-amount"},
    "filtered": {"where": "status", "is": "eq", "value": "PAID"},
    "searched": {"q": "user 4711"},
}


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    fill(baselines.mongodb().bench)
    took: dict[str, list[float]] = {}
    growth: list[float] = []
    idle: list[float] = []
    busy: list[float] = []
    port = free_port()
    waiting = app.send_task("worker_tasks.tasks.long_running_task", ["x"], queue="unattended").id
    gunicorn = f"exec gunicorn wsgi:app --bind 127.0.0.1:{port} --workers 1"
    with servers.worker(2), ProcessPoolExecutor(3) as people:
        for _ in range(repeats):
            # New results for each repeat, because artifacts stay cached beside their result.
            results = [_joined() for _ in range(2)]
            with servers.process(gunicorn, "Booting worker") as process:
                wait_for_answer(port)
                idle += people.submit(_polls, port, waiting, POLL_SECONDS).result()
                with Peak(process) as peak:
                    readers = [people.submit(read, port, task_id) for task_id in results]
                    polls: Future[list[float]] = people.submit(_polls, port, waiting, POLL_SECONDS)
                    busy += polls.result()
                    for reader in readers:
                        for name, seconds in reader.result().items():
                            took.setdefault(name, []).append(seconds)
                growth.append(peak.growth)
    for name, each in took.items():
        yield amount(f"300,000 rows, two people at once: {name}", "", each, "s")
    yield amount("300,000 rows, two people at once: growth of the web process", "<= 60", growth, "MiB")
    name = "300,000 rows, two people at once: p99 of others' polls, against idle"
    yield ratio(name, "<= 2", [_p99(busy)], [_p99(idle)])


def _joined() -> str:
    task_id = submit_join(read_join(JOIN), fresh=True)
    wait_until(lambda: ledger.find_task(task_id)["status"] in ledger.FINAL_STATES, within=120, pause=0.1)
    return task_id


def read(port: int, task_id: str) -> dict[str, float]:
    """Reads a result as a person would; returns the seconds that each kind of action took."""
    page, took = f"/tasks/{task_id}/result", {}
    took["measured"] = _until(port, f"/api/v1/tasks/{task_id}/profile")
    for number in range(1, PAGES + 1):
        began = time.perf_counter()
        _get(port, f"{page}?page={number if number < PAGES else 6000}")
        took["a page"] = max(took.get("a page", 0), time.perf_counter() - began)
        time.sleep(PAUSE)
    for name, query in QUERIES.items():
        took[name] = _until(port, f"/api/v1/tasks/{task_id}/result?{urlencode(query)}")
        for number in range(1, 6):
            _get(port, f"{page}?{urlencode(query | {'page': number})}", or_else=422)
            time.sleep(PAUSE)
    for name in FORMATS:
        took[f"{name}, made and downloaded"] = _until(port, f"/api/v1/tasks/{task_id}/result.{name}")
    return took


def _until(port: int, path: str) -> float:
    """Requests the path again after each 503; returns the seconds until a 200."""
    began = time.perf_counter()
    while _get(port, path, or_else=503) != http.client.OK:
        time.sleep(PAUSE)
    return time.perf_counter() - began


def _get(port: int, path: str, or_else: int = 200) -> int:
    """Returns the status, either 200 or ``or_else``; raises RuntimeError on any other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Accept": "text/html"} if not path.startswith("/api") else {})
    answer = connection.getresponse()
    while answer.read(1024 * 1024):
        pass
    if answer.status not in {200, or_else}:
        raise RuntimeError(f"{path}: {answer.status}")
    return answer.status


def _polls(port: int, task_id: str, seconds: float) -> list[float]:
    """Polls a task more often than a few pages would; returns the seconds of each poll."""
    tag, took = tag_of(port, f"/tasks/{task_id}/status"), []
    connections: list[Any] = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(POLLERS)]
    pause = 1 / (POLLERS * POLLS_A_SECOND)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for connection in connections:
            began = time.perf_counter()
            connection.request("GET", f"/tasks/{task_id}/status", headers={"HX-PTag": tag, "HX-Request": "true"})
            answer = connection.getresponse()
            answer.read()
            took.append(time.perf_counter() - began)
            tag = answer.headers.get("HX-PTag", tag)
            time.sleep(max(0, pause - (time.perf_counter() - began)))
    return took


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]
