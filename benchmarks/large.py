"""Joins two large collections of small documents without an index, within DuckDB's limit of 256 MiB.

``LARGE_KEYS`` is the number of left documents, 2,000,000 unless set. The other side has half as many.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import baselines, runs
from benchmarks.bulk import Peak
from benchmarks.stack import Row, Servers, amount, timed
from worker_tasks import release

LEFT = int(os.environ.get("LARGE_KEYS", "2000000"))
OTHER = LEFT // 2
MATCHED = OTHER // 100
SECONDS = 7_200
#: Spreads the keys over the collection. It has no common factor with the numbers of documents.
STRIDE = 7_919
INNER = 10_000
JOIN = {
    "database": "bench",
    "from": "large",
    "joins": [{"from": "keys", "as": "key", "kind": "inner", "shape": "rows", "on": [{"local": "k", "foreign": "k"}]}],
}
MEBIBYTE = 2**20


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    """Joins the keys of two collections, of which one in a hundred of the smaller one matches."""
    release.ensure_indexes()
    _fill("large", LEFT, 0)
    _fill("keys", OTHER, LEFT - MATCHED)
    took, disk, memory = [], [], []
    environment = {"JOIN_SECONDS": str(SECONDS), "READING_MEMORY_MIB": "256", "TMPDIR": str(_folder(servers))}
    for _ in range(repeats):
        with (
            servers.worker(1, **environment) as process,
            Peak(process) as peak,
            runs.DiskPeak(_folder(servers)) as spilled,
        ):
            took.append(timed(_joined))
        disk.append(spilled.peak / MEBIBYTE)
        memory.append(peak.growth)
    name = f"{LEFT:,} x {OTHER:,} keys without an index"
    yield amount(f"{name}: submitted to published", "ends", took, "s")
    yield amount(f"{name}: largest temporary files", "bounded", disk, "MiB")
    yield amount(f"{name}: peak memory above idle", "<= 450", memory, "MiB")


def _joined() -> None:
    count = runs.run(JOIN, SECONDS)
    if count != MATCHED:
        raise RuntimeError(f"{count:,} rows instead of {MATCHED:,}")


def _folder(servers: Servers) -> Path:
    folder = servers.folder / "temporary"
    folder.mkdir(exist_ok=True)
    return folder


def _fill(name: str, count: int, first: int) -> None:
    """Writes documents with the keys from ``first`` on, in a scattered order, unless they are there."""
    database = baselines.mongodb().bench
    if database[name].estimated_document_count() == count:
        return
    number: dict[str, Any] = {"$add": [{"$multiply": ["$outer", INNER]}, "$inner"]}
    database.aggregate(
        [
            {"$documents": [{"outer": {"$range": [0, -(-count // INNER)]}}]},
            {"$unwind": "$outer"},
            {"$set": {"inner": {"$range": [0, INNER]}}},
            {"$unwind": "$inner"},
            {"$project": {"_id": number}},
            {"$match": {"_id": {"$lt": count}}},
            {"$set": {"k": {"$add": [first, {"$mod": [{"$multiply": ["$_id", STRIDE]}, count]}]}, "text": "small"}},
            {"$out": name},
        ],
        allowDiskUse=True,
    )
