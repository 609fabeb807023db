"""If a server goes away while an artifact is built, the job is retried, and no failure is recorded."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from development.servers import Server
from tests.faults.support import killed
from tests.support import eventually, paused, refusing
from tests.worker_tasks.analysis.support import build, keys, result, state_of, with_table
from worker_tasks.analysis import artifact_job, artifacts, tasks
from worker_tasks.analysis.artifact_job import MAX_ATTEMPTS, ArtifactJob
from worker_tasks.analysis.artifacts import TABLE, ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import ServiceRefuses, ServiceUnavailable
from worker_tasks.queue import retrying
from worker_tasks.queue.celery_app import app
from worker_tasks.results.summaries import Summary

pytestmark = pytest.mark.usefixtures("servers")

#: Longer than the timeout of any single call.
AWAY_SECONDS = 3.5


def start_worker(summary: Summary, spec: ArtifactSpec) -> threading.Thread:
    """Builds an artifact in the background."""
    worker = threading.Thread(target=build, args=(summary, spec))
    worker.start()
    return worker


@pytest.fixture
def exported(servers: None) -> tuple[Summary, ArtifactSpec]:
    """A result with its table, and the spec of a file, which needs MongoDB."""
    summary = with_table([{"_id": number} for number in range(3)])
    return summary, export_spec(summary.task_id, "csv", Selection(), embed_provenance=True)


@pytest.mark.parametrize("outage", [paused, killed], ids=["frozen", "dead"])
def test_an_export_continues_when_mongodb_is_back(
    exported: tuple[Summary, ArtifactSpec],
    mongodb_server: Server,
    outage: Callable[[Server], AbstractContextManager[None]],
) -> None:
    summary, spec = exported
    with outage(mongodb_server):
        worker = start_worker(summary, spec)
        time.sleep(AWAY_SECONDS)
        assert state_of(summary, spec) is ArtifactState.BEGUN
    worker.join(30)
    assert state_of(summary, spec) is ArtifactState.DONE


def test_a_long_outage_of_mongodb_is_not_recorded_as_a_failure(
    exported: tuple[Summary, ArtifactSpec], mongodb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, spec = exported
    monkeypatch.setattr(app, "publish_artifact", lambda *_: None)
    monkeypatch.setattr(retrying, "IN_PLACE_SECONDS", 1)
    with paused(mongodb_server):
        for _ in range(MAX_ATTEMPTS + 1):
            assert artifacts.request_artifact(summary, spec).state is ArtifactState.REQUESTED
            build(summary, spec)
            assert state_of(summary, spec) is None
    build(summary, spec)
    assert state_of(summary, spec) is ArtifactState.DONE


def test_a_table_is_built_when_redis_is_back(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = result([{"_id": number} for number in range(3)])
    # The claim expires during the outage.
    monkeypatch.setattr(artifact_job, "HEARTBEAT_TIMEOUT", 1)
    build_table = tasks.BUILDERS[ArtifactKind.TABLE]
    tries: list[ArtifactJob] = []

    def freeze_first_try(job: ArtifactJob) -> tasks.Built:
        tries.append(job)
        if len(tries) > 1:
            return build_table(job)
        job.write("table", [b"from the first try"])
        with paused(redis_server):
            return build_table(job)

    monkeypatch.setitem(tasks.BUILDERS, ArtifactKind.TABLE, freeze_first_try)
    build(summary, TABLE)
    assert len(tries) == 2
    assert state_of(summary, TABLE) is ArtifactState.DONE
    assert artifacts.read_range(summary, TABLE, "table").startswith(b"PAR1")
    assert {key.rpartition(":")[2] for key in keys(f"derived:{summary.run}:*")} == {
        "state",
        "table",
        "offsets",
        "profile",
    }


def test_a_job_starts_when_redis_is_back(redis_server: Server) -> None:
    summary = result([{"_id": 1}])
    with paused(redis_server):
        worker = start_worker(summary, TABLE)
        time.sleep(AWAY_SECONDS)
    worker.join(30)
    assert state_of(summary, TABLE) is ArtifactState.DONE


def test_a_request_fails_with_the_name_of_the_server_that_is_away_or_refuses(redis_server: Server) -> None:
    first, second = result([{"_id": 1}]), result([{"_id": 1}])
    with paused(redis_server), pytest.raises(ServiceUnavailable) as away:
        artifacts.request_artifact(first, TABLE)
    assert (type(away.value), away.value.title) == (ServiceUnavailable, "Redis is away")
    with refusing("READONLY"), pytest.raises(ServiceRefuses) as refused:
        artifacts.request_artifact(second, TABLE)
    assert refused.value.title == "Redis is read-only"


def test_a_worker_that_lost_its_claim_leaves_the_job_to_the_new_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_job, "HEARTBEAT_TIMEOUT", 1)
    summary = result([{"_id": 1}])
    late, other = ArtifactJob(summary, TABLE), ArtifactJob(summary, TABLE)
    assert late.begin() == 1
    assert late.hold()
    eventually(lambda: state_of(summary, TABLE) is None, within=5)
    assert other.begin() == 2
    assert not late.hold()
    late.leave()
    assert state_of(summary, TABLE) is ArtifactState.BEGUN
    other.end({})
    assert not late.hold()
    late.leave()
    assert state_of(summary, TABLE) is ArtifactState.DONE
    assert connections().results.get(artifacts.key_of(summary, TABLE, "times")) is None
