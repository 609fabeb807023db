"""A server that is away while something is worked out: never an outcome, tried again, and remembered by nobody."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from development.servers import Server
from tests.faults.support import killed
from tests.support import eventually, paused, refusing
from tests.worker_tasks.analysis.support import keys, result, with_table
from worker_tasks.analysis import artifact_job as working
from worker_tasks.analysis import artifacts, tasks
from worker_tasks.analysis.artifact_job import MAX_TIMES, ArtifactJob
from worker_tasks.analysis.artifacts import TABLE, ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.analysis.tasks import derive
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import ServiceRefuses, ServiceUnavailable
from worker_tasks.queue import retrying
from worker_tasks.queue.celery_app import app
from worker_tasks.results.result_store import Summary

pytestmark = pytest.mark.usefixtures("servers")

#: Longer than any single answer is waited for.
AWAY_SECONDS = 3.5


def run(summary: Summary, derivation: ArtifactSpec) -> None:
    derive(summary.key, summary.task_id, summary.run, str(derivation.kind), derivation.options)


def state(summary: Summary, derivation: ArtifactSpec) -> ArtifactState | None:
    found = artifacts.find_artifact(summary, derivation)
    return found.state if found else None


def begun(summary: Summary, derivation: ArtifactSpec) -> threading.Thread:
    """A worker that works this out meanwhile."""
    worker = threading.Thread(target=run, args=(summary, derivation))
    worker.start()
    return worker


@pytest.fixture
def exported(servers: None) -> tuple[Summary, ArtifactSpec]:
    """A result with its table, and a file of it, for which a worker needs MongoDB."""
    summary = with_table([{"_id": number} for number in range(3)])
    return summary, export_spec(summary.task_id, "csv", Selection(), embed_provenance=True)


@pytest.mark.parametrize("outage", [paused, killed], ids=["frozen", "dead"])
def test_a_file_that_meets_a_mongodb_that_is_away_is_made_when_it_is_back(
    exported: tuple[Summary, ArtifactSpec],
    mongodb_server: Server,
    outage: Callable[[Server], AbstractContextManager[None]],
) -> None:
    summary, wanted = exported
    with outage(mongodb_server):
        worker = begun(summary, wanted)
        time.sleep(AWAY_SECONDS)
        assert state(summary, wanted) is ArtifactState.BEGUN
    worker.join(30)
    assert state(summary, wanted) is ArtifactState.DONE


def test_a_mongodb_that_stays_away_is_not_remembered_as_a_failure(
    exported: tuple[Summary, ArtifactSpec], mongodb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, wanted = exported
    monkeypatch.setattr(app, "publish_artifact", lambda *_: None)
    monkeypatch.setattr(retrying, "IN_PLACE_SECONDS", 1)
    with paused(mongodb_server):
        for _ in range(MAX_TIMES + 1):
            assert artifacts.request_artifact(summary, wanted).state is ArtifactState.REQUESTED
            run(summary, wanted)
            assert state(summary, wanted) is None
    run(summary, wanted)
    assert state(summary, wanted) is ArtifactState.DONE


def test_a_table_that_meets_a_redis_that_is_away_is_made_when_it_is_back(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = result([{"_id": number} for number in range(3)])
    # Its signs of life run out meanwhile.
    monkeypatch.setattr(working, "BEGUN_SECONDS", 1)
    make = tasks.BUILDERS[ArtifactKind.TABLE]
    tries: list[ArtifactJob] = []

    def at_first_frozen(work: ArtifactJob) -> tasks.Built:
        tries.append(work)
        if len(tries) > 1:
            return make(work)
        work.write("table", [b"of the first try"])
        with paused(redis_server):
            return make(work)

    monkeypatch.setitem(tasks.BUILDERS, ArtifactKind.TABLE, at_first_frozen)
    run(summary, TABLE)
    assert len(tries) == 2
    assert state(summary, TABLE) is ArtifactState.DONE
    assert artifacts.read_range(summary, TABLE, "table").startswith(b"PAR1")
    assert {key.rpartition(":")[2] for key in keys(f"derived:{summary.run}:*")} == {
        "state",
        "table",
        "offsets",
        "profile",
    }


def test_a_redis_that_is_away_before_anything_has_begun_is_waited_for(redis_server: Server) -> None:
    summary = result([{"_id": 1}])
    with paused(redis_server):
        worker = begun(summary, TABLE)
        time.sleep(AWAY_SECONDS)
    worker.join(30)
    assert state(summary, TABLE) is ArtifactState.DONE


def test_who_asks_is_told_that_redis_is_away_or_that_it_refuses_by_name(redis_server: Server) -> None:
    first, second = result([{"_id": 1}]), result([{"_id": 1}])
    with paused(redis_server), pytest.raises(ServiceUnavailable) as away:
        artifacts.request_artifact(first, TABLE)
    assert (type(away.value), away.value.title) == (ServiceUnavailable, "Redis is away")
    with refusing("READONLY"), pytest.raises(ServiceRefuses) as refused:
        artifacts.request_artifact(second, TABLE)
    assert refused.value.title == "Redis is read-only"


def test_a_worker_that_was_cut_off_leaves_it_to_the_one_that_has_it_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "BEGUN_SECONDS", 1)
    summary = result([{"_id": 1}])
    late, other = ArtifactJob(summary, TABLE), ArtifactJob(summary, TABLE)
    assert late.begin() == 1
    assert late.hold()
    eventually(lambda: state(summary, TABLE) is None, within=5)
    assert other.begin() == 2
    assert not late.hold()
    late.leave()
    assert state(summary, TABLE) is ArtifactState.BEGUN
    other.end({})
    assert not late.hold()
    late.leave()
    assert state(summary, TABLE) is ArtifactState.DONE
    assert connections().results.get(artifacts.key_of(summary, TABLE, "times")) is None
