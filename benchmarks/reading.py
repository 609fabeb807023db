"""A result of 300,000 rows, read by two people at once: how long it takes, and what it does to the web process.

That is what the process grows by, and how long the polls of others take meanwhile.
"""

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
from benchmarks.web import answering, tag_of
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
#: Seconds between two things that a person does, who is quick.
PAUSE = 0.25
PAGES = 40
POLLERS, POLLS_A_SECOND, POLL_SECONDS = 8, 5, 20
WISHES = {
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
            # Anew each time: what was worked out goes with the result that it was worked out of.
            results = [_joined() for _ in range(2)]
            with servers.process(gunicorn, "Booting worker") as process:
                answering(port)
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
    """What a person does with a result; the seconds until each wish was granted."""
    page, took = f"/tasks/{task_id}/result", {}
    took["measured"] = _until(port, f"/api/v1/tasks/{task_id}/profile")
    for number in range(1, PAGES + 1):
        began = time.perf_counter()
        _get(port, f"{page}?page={number if number < PAGES else 6000}")
        took["a page"] = max(took.get("a page", 0), time.perf_counter() - began)
        time.sleep(PAUSE)
    for name, wish in WISHES.items():
        took[name] = _until(port, f"/api/v1/tasks/{task_id}/result?{urlencode(wish)}")
        for number in range(1, 6):
            _get(port, f"{page}?{urlencode(wish | {'page': number})}", or_else=422)
            time.sleep(PAUSE)
    for form in FORMATS:
        took[f"{form}, made and downloaded"] = _until(port, f"/api/v1/tasks/{task_id}/result.{form}")
    return took


def _until(port: int, path: str) -> float:
    """The seconds until this is answered with 200, asked for again as it says."""
    began = time.perf_counter()
    while _get(port, path, or_else=503) != http.client.OK:
        time.sleep(PAUSE)
    return time.perf_counter() - began


def _get(port: int, path: str, or_else: int = 200) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Accept": "text/html"} if not path.startswith("/api") else {})
    answer = connection.getresponse()
    while answer.read(1024 * 1024):
        pass
    if answer.status not in {200, or_else}:
        raise RuntimeError(f"{path}: {answer.status}")
    return answer.status


def _polls(port: int, task_id: str, seconds: float) -> list[float]:
    """The seconds that each of the polls of a few people took, who ask as often as pages do, and more."""
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
