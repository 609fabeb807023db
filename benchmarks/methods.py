"""Measures joins by either method, from submitted to published, side by side with other ways to the same rows."""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bson import json_util

from benchmarks import baselines, runs
from benchmarks.bulk import JOIN as USERS
from benchmarks.bulk import drain as drain_users
from benchmarks.bulk import original
from benchmarks.stack import Row, Servers, amount, fill, ratio, timed
from development.samples.loading import load
from worker_tasks import release

ARROW = Path(__file__).parent / "arrow.py"
#: The exit status of the script if PyMongoArrow is not installed.
NOT_INSTALLED = 3
HOUR = ("origin", "year", "month", "day", "hour")


def _join(collection: str, as_: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    on = [{"local": local, "foreign": foreign} for local, foreign in pairs]
    return {"from": collection, "as": as_, "kind": "inner", "shape": "rows", "on": on}


def _flights(*joins: dict[str, Any], **more: Any) -> runs.Join:
    return {"database": "flights", "from": "flights", "joins": list(joins), **more}


_PLANE = _join("planes", "plane", ("tailnum", "tailnum"))
PLANES = _flights(_PLANE)
STAR = _flights(
    _PLANE, _join("airports", "airport", ("dest", "faa")), _join("airlines", "airline", ("carrier", "carrier"))
)
WEATHER = _flights(_join("weather", "weather", *((name, name) for name in HOUR)))
ROWS = {"planes": 284_170, "star": 277_977, "weather": 335_220, "users": 100_000}
JOINS = {"planes": PLANES, "star": STAR, "weather": WEATHER, "users": USERS}


def drain_sides() -> None:
    """Reads all flights and planes and drops them: no join of them can be faster."""
    for name in ("flights", "planes"):
        for _ in baselines.mongodb().flights[name].find_raw_batches():
            pass


def drain_lookup() -> None:
    """Lets MongoDB join flights with planes, and drops the rows."""
    lookup = {"from": "planes", "localField": "tailnum", "foreignField": "tailnum", "as": "plane"}
    for _ in baselines.mongodb().flights.flights.aggregate_raw_batches([{"$lookup": lookup}, {"$unwind": "$plane"}]):
        pass


def plain_python() -> None:
    """Joins flights with planes as a short script would: a dict of planes, and a file of Extended JSON."""
    database = baselines.mongodb().flights
    planes = {plane["tailnum"]: plane for plane in database.planes.find()}
    with tempfile.TemporaryFile("w") as file:
        for flight in database.flights.find():
            if (plane := planes.get(flight["tailnum"])) is not None:
                file.write(json_util.dumps({**flight, "plane": plane}) + "\n")


def arrow() -> float | None:
    """The seconds of PyMongoArrow and DuckDB; None if PyMongoArrow is not installed.

    ``ARROW_PYTHON`` may name another Python that has it.
    """
    python = os.environ.get("ARROW_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(ARROW), os.environ["MONGODB_URI"]], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == NOT_INSTALLED:
        return None
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    load(os.environ["MONGODB_URI"], ["flights"])
    fill(baselines.mongodb().bench)
    times: dict[str, list[float]] = defaultdict(list)
    for repeat in range(1, repeats + 1):
        _measure_others(servers, times)
        for processes in (1, 2):
            with servers.worker(processes):
                runs.run(PLANES)  # a new worker process first has to connect and import
                for name, join in JOINS.items():
                    first, took = runs.run_watched(join, ROWS[name])
                    times[f"{name} {processes}"].append(took)
                    times[f"{name} first {processes}"].append(first)
        latest = ", ".join(f"{name} {seconds[-1]:.2f}" for name, seconds in times.items())
        print(f"repeat {repeat}, seconds: {latest}", flush=True)
    yield from _rows(times)


def _measure_others(servers: Servers, times: dict[str, list[float]]) -> None:
    others: dict[str, Callable[[], None]] = {
        "sides": drain_sides,
        "lookup": drain_lookup,
        "python": plain_python,
        "users lookup": drain_users,
    }
    for name, other in others.items():
        times[name].append(timed(other))
    if (seconds := arrow()) is not None:
        times["arrow"].append(seconds)
    with servers.original_worker(1):
        original()
        times["original"].append(timed(original))


def _rows(times: dict[str, list[float]]) -> Iterator[Row]:
    for processes, goal_arrow in ((1, "<= 1.4"), (2, "<= 0.9")):
        planes = times[f"planes {processes}"]
        name = f"flights with planes, {processes} process{'es' if processes > 1 else ''}, against"
        if times["arrow"]:
            yield ratio(f"{name} PyMongoArrow + DuckDB", goal_arrow, planes, times["arrow"])
        yield ratio(f"{name} a plain Python script", "<= 0.3", planes, times["python"])
        yield ratio(f"{name} both sides drained", "", planes, times["sides"])
        yield ratio(f"{name} the raw $lookup drained", "", planes, times["lookup"])
    if not times["arrow"]:
        print("PyMongoArrow is not installed: its comparison is left out. benchmarks/requirements.txt has it.")
    for processes in (1, 2):
        planes = times[f"planes {processes}"]
        for name, text in (("star", "star of three dimensions"), ("weather", "weather on five keys")):
            label = f"{text}, {processes} process{'es' if processes > 1 else ''}, against flights with planes"
            yield ratio(label, "<= 1.6", times[f"{name} {processes}"], planes)
    lookup = times["users lookup"]
    yield ratio("users with orders, 1 process, against the raw $lookup drained", "<= 1.1", times["users 1"], lookup)
    yield ratio("users with orders, 2 processes, against the raw $lookup drained", "<= 0.7", times["users 2"], lookup)
    name = "users with orders, 2 processes, against the original's task"
    yield ratio(name, "<= 0.33", times["users 2"], times["original"])
    for name in JOINS:
        yield amount(f"first rows, 1 process: {name}", "<= 0.5", times[f"{name} first 1"], "s")
