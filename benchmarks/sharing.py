"""Counts the aggregations that MongoDB runs for a hundred identical submissions at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import baselines
from benchmarks.bulk import JOIN
from benchmarks.stack import Row, Servers, amount, fill, wait_until
from worker_tasks import release
from worker_tasks.infra.connections import connections
from worker_tasks.submission import read_join, submit_join

PEOPLE = 100
#: The comment of the aggregation of a run's first part, set in worker_tasks/joins/run/lifecycle.py.
FIRST_PART = r"^dovetail:.*\.0\.[^.]+$"


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    bench = connections().joins.bench
    fill(baselines.mongodb().bench)
    aggregations, documents = [], []
    with servers.worker(2):
        for repeat in range(repeats):
            join = {**JOIN, "match": {"name": {"$ne": f"nobody {repeat}"}}, "limit": 20_000}
            bench.command("profile", 2, filter={"ns": "bench.users", "command.aggregate": {"$exists": True}})
            with ThreadPoolExecutor(20) as threads:
                tasks = list(threads.map(lambda _, join=join: submit_join(read_join(join)), range(PEOPLE)))
            done = {"_id": {"$in": tasks}, "status": "SUCCESS"}
            wait_until(lambda done=done: connections().tasks.count_documents(done) == PEOPLE, pause=0.05)  # type: ignore[misc]
            bench.command("profile", 0)
            joined = bench["system.profile"].count_documents(
                {"op": "command", "command.comment": {"$regex": FIRST_PART}}
            )
            aggregations.append(float(joined))
            documents.append(float(connections().tasks.count_documents(done)))
            bench.drop_collection("system.profile")
    yield amount("100 identical submissions at once: aggregations", "1", aggregations, "")
    yield amount("100 identical submissions at once: task documents", "100", documents, "")
