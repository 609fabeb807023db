"""Random joins give the rows of the plain Python reference by every method."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import bson
import duckdb
import pytest
from pymongo.database import Database
from pymongo.errors import OperationFailure

from tests.worker_tasks.joins.matching.bson_strategies import CODEC
from tests.worker_tasks.joins.reference import joined_rows
from tests.worker_tasks.joins.scan.random_joins import (
    DATABASE,
    NAMES,
    OTHER_DATABASE,
    random_documents,
    random_spec,
)
from tests.worker_tasks.joins.scan.running import (
    disagreement,
    form,
    ranges,
    scanned,
    unmatched_disagreement,
    wrong_columns,
)
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.planning import is_divisible
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy, allows_lookup
from worker_tasks.joins.scan import scan
from worker_tasks.joins.spec.spec import JoinSpec

DATA_SETS, SPECS = 84, 60


@pytest.fixture(scope="module")
def databases(servers: None) -> Iterator[dict[str, Database[Document]]]:
    client = connections().joins
    found = {name: client[OTHER_DATABASE if name == "h" else DATABASE] for name in NAMES}
    client[DATABASE].command("create", "v", viewOn="f", pipeline=[{"$project": {"_id": 0}}])
    yield found
    for name in (DATABASE, OTHER_DATABASE):
        client.drop_database(name)


def fill(databases: dict[str, Database[Document]], rng: random.Random) -> dict[str, list[Document]]:
    """Replaces all documents. Returns them as they are read back."""
    data: dict[str, list[Document]] = {}
    for name, database in databases.items():
        if name == "v":
            data[name] = [{field: document[field] for field in document if field != "_id"} for document in data["f"]]
            continue
        drawn = random_documents(rng, name)
        database[name].delete_many({})
        database[name].insert_many(map(dict, drawn))
        data[name] = [bson.decode(bson.encode(document), CODEC) for document in drawn]
    return data


def by_lookup(spec: JoinSpec, database: Database[Document]) -> list[Document] | None:
    """The rows of a lookup; None if MongoDB refuses to sort by two lists of one document."""
    strategy = Strategy(JoinMethod.LOOKUP, 0, None, tuple(Step() for _ in spec.joins))
    try:
        return list(database[spec.from_].aggregate(compile_pipeline(spec, strategy), allowDiskUse=True))
    except OperationFailure as error:
        if "parallel arrays" not in str(error):
            raise
        return None


def is_comparable(spec: JoinSpec) -> bool:
    """Whether a lookup can do the join, and the order of the matches of a row does not matter or is determined.

    A lookup does not search a list at the end of a path through two lists.
    """
    embedding = [join for join in spec.joins if join.embeds_documents]
    paths = [pair.local for join in spec.joins for pair in join.on]
    return (
        allows_lookup(spec)
        and all(path.count(".") < 2 for path in paths)
        and all(
            join.sort[-1:] in ([("_id", 1)], [("_id", -1)]) or (join.shape == "rows" and join.limit is None)
            for join in embedding
        )
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_every_method_gives_the_rows_of_the_reference(
    seed: int,
    databases: dict[str, Database[Document]],
    duck: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if seed % 3:
        monkeypatch.setattr(scan, "STREAMED_ROWS", -1)
    if seed % 3 == 2:
        monkeypatch.setattr(scan, "PAIRED_ROWS", 2)
        monkeypatch.setattr(scan, "BUCKET_SHARE", 1e-6)
    rng = random.Random(seed)
    data = fill(databases, rng)
    for number in range(SPECS):
        spec = random_spec(rng)
        at = f"seed {seed}, join {number}: {spec.canonical()}\n{data}"
        expected = joined_rows(spec, data)
        rows, part = scanned(spec, duck)
        assert disagreement(spec, expected, rows) is None, at
        assert unmatched_disagreement(spec, expected, rows, part) is None, at
        assert not wrong_columns(spec, rows, part, data[spec.from_]), at
        if number % 8 == 0 and is_divisible(spec) and spec.from_ != "v":
            parts = [row for bounds in ranges(["l1", "l4"]) for row in scanned(spec, duck, bounds)[0]]
            assert Counter(map(form, parts)) == Counter(map(form, rows)), at
        if is_comparable(spec):
            found = by_lookup(spec, databases[spec.from_])
            assert found is None or disagreement(spec, expected, found) is None, at


def test_the_random_joins_cover_every_method_kind_and_shape() -> None:
    covered: Counter[tuple[Any, ...]] = Counter()
    for seed in range(DATA_SETS):
        rng = random.Random(seed)
        for name in NAMES:
            if name != "v":
                random_documents(rng, name)
        for spec in (random_spec(rng) for _ in range(SPECS)):
            for join in spec.joins:
                covered[is_comparable(spec), join.kind, join.shape] += 1
                covered["into", join.shape] += join.into is not None
    for kind in ("left", "inner"):
        for shape in ("array", "rows", "first", "count"):
            assert covered[True, kind, shape] > 10
            assert covered[False, kind, shape] > 10
    assert all(covered[False, "outer", shape] > 10 for shape in ("array", "rows", "first"))
    assert all(covered["into", shape] > 10 for shape in ("array", "first", "count"))
    assert covered[True, "semi", "array"] > 50
    assert covered[True, "anti", "array"] > 50
