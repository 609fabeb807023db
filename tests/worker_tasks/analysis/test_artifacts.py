"""An artifact is built by one worker, is visible once it is complete, and is rebuilt after its worker died."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import duckdb
import pytest

from tests.support import eventually, publish
from tests.worker_tasks.analysis.support import (
    build,
    file,
    keys,
    numbers,
    random_documents,
    record,
    result,
    state_of,
    value,
    with_table,
)
from tests.worker_tasks.support import new_id
from worker_tasks.analysis import artifact_job, artifacts, engine, export_selection, reader
from worker_tasks.analysis.artifact_job import GIVEN_UP, MAX_ATTEMPTS, ArtifactJob
from worker_tasks.analysis.artifacts import REQUESTED_SECONDS, TABLE, ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.connections import connections
from worker_tasks.infra.settings import Settings, settings
from worker_tasks.queue import celery_app
from worker_tasks.records import ledger
from worker_tasks.results import result_store, summaries
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import ResultGone
from worker_tasks.results.summaries import Summary

pytestmark = pytest.mark.usefixtures("servers")

QUERY = RowQuery(sort=(("text", True),))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker counts as lost after a second."""
    monkeypatch.setattr(artifact_job, "HEARTBEAT_TIMEOUT", 1)


@pytest.fixture(autouse=True)
def queue(servers: None) -> Iterator[None]:
    """Empties the queue, so that no worker takes requests of these tests."""
    yield
    connections().queue.delete("celery")


def seconds_left(key: str) -> float:
    milliseconds: Any = connections().results.pttl(key)
    return float(milliseconds) / 1000


def keys_of_run(summary: Summary) -> set[str]:
    return keys(f"derived:{summary.run}:*") | keys(f"derived_of:{summary.run}")


def limit(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    limited: Settings = settings().model_copy(update=limits)
    for module in ("engine", "tasks"):
        monkeypatch.setattr(f"worker_tasks.analysis.{module}.settings", lambda: limited)


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the messages to the workers instead of sending them, because a worker may be running."""
    sent: list[Any] = []
    monkeypatch.setattr(celery_app.app, "publish_artifact", lambda *arguments: sent.append(arguments))
    return sent


def test_repeated_requests_send_one_message(published: list[Any]) -> None:
    summary = result([{"_id": 1}])
    assert [artifacts.request_artifact(summary, TABLE).state for _ in range(3)] == [ArtifactState.REQUESTED] * 3
    assert published == [(summary.key, summary.task_id, summary.run, TABLE.kind, TABLE.options)]
    (key,) = keys_of_run(summary)
    assert 0 < seconds_left(key) <= REQUESTED_SECONDS
    build(summary, TABLE)
    assert artifacts.request_artifact(summary, TABLE).state is ArtifactState.DONE
    assert len(published) == 1


def test_the_time_limit_includes_work_between_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = with_table([{"_id": number} for number in range(3)])
    spec = export_selection.export_spec(summary.task_id, "json", Selection(columns=("_id",)), embed_provenance=False)
    limited = settings().model_copy(update={"reading_seconds": 0.0})
    # Limits only the job, because the engine would interrupt the queries first.
    monkeypatch.setattr(artifact_job, "settings", lambda: limited)
    build(summary, spec)
    artifact = artifacts.find_artifact(summary, spec)
    assert artifact is not None
    assert artifact.state is ArtifactState.FAILED
    assert "which is the limit" in (artifact.message or "")


def test_only_one_of_many_workers_gets_a_job() -> None:
    summary = result([{"_id": 1}])
    artifacts.request_artifact(summary, TABLE)
    begun: list[int] = []
    together = threading.Barrier(8)

    def begin() -> None:
        together.wait()
        begun.append(ArtifactJob(summary, TABLE).begin())

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == [0] * 7 + [1]
    assert state_of(summary) is ArtifactState.BEGUN


def test_a_finished_artifact_is_not_built_again() -> None:
    summary = with_table([{"_id": 1}])
    assert ArtifactJob(summary, TABLE).begin() == 0
    before = keys_of_run(summary)
    build(summary, TABLE)
    assert keys_of_run(summary) == before


@pytest.mark.usefixtures("short")
def test_the_job_of_a_dead_worker_starts_over_and_the_dead_worker_changes_nothing() -> None:
    summary = result([{"_id": 1}])
    dead = ArtifactJob(summary, TABLE)
    assert dead.begin() == 1
    dead.write("table", [b"from the dead worker"])
    eventually(lambda: state_of(summary) is None, within=5)
    alive = ArtifactJob(summary, TABLE)
    assert alive.begin() == 2
    alive.write("table", [b"from the live worker"])
    dead.end({"by": "dead"})
    dead.fail("from the dead worker")
    assert state_of(summary) is ArtifactState.BEGUN
    alive.end({"by": "alive"})
    dead.fail("from the dead worker")
    artifact = artifacts.find_artifact(summary, TABLE)
    assert artifact is not None
    assert artifact.data == {"by": "alive"}
    assert artifacts.read_range(summary, TABLE, "table") == b"from the live worker"


@pytest.mark.usefixtures("short")
def test_a_worker_with_heartbeats_keeps_its_job() -> None:
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    with job.alive():
        job.report(3, 10)
        until = time.monotonic() + 1.8
        while time.monotonic() < until:
            assert ArtifactJob(summary, TABLE).begin() == 0
            time.sleep(0.1)
        artifact = artifacts.find_artifact(summary, TABLE)
        assert artifact is not None
        assert (artifact.state, artifact.done, artifact.total) == (ArtifactState.BEGUN, 3, 10)
        job.end({})
    assert state_of(summary) is ArtifactState.DONE


def test_a_job_that_repeatedly_kills_its_worker_fails() -> None:
    summary = result([{"_id": 1}])
    for number in range(MAX_ATTEMPTS):
        assert ArtifactJob(summary, TABLE).begin() == number + 1
        connections().results.delete(*(f"derived:{summary.run}:table:{name}" for name in ("state", "mark")))
    build(summary, TABLE)
    artifact = artifacts.find_artifact(summary, TABLE)
    assert artifact is not None
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, GIVEN_UP)
    assert artifacts.request_artifact(summary, TABLE).state is ArtifactState.FAILED
    assert ArtifactJob(summary, TABLE).begin() == 0


def test_written_parts_become_visible_when_the_job_ends() -> None:
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    assert job.write("table", [b"one ", b"", b"two"]) == 7
    assert job.write("empty", []) == 0
    assert artifacts.read_range(summary, TABLE, "table") == b""
    job.end({"size": 7})
    assert artifacts.read_range(summary, TABLE, "table") == b"one two"
    assert artifacts.read_range(summary, TABLE, "table", 4, 5) == b"tw"
    assert b"".join(artifacts.read_artifact(summary, TABLE, "table", 7)) == b"one two"
    with pytest.raises(ResultGone):
        list(artifacts.read_artifact(summary, TABLE, "table", 8))


def build_all_kinds(summary: Summary) -> list[ArtifactSpec]:
    """Builds a row order and a file in each format. Returns the specs of all artifacts."""
    assert numbers(summary, QUERY)
    for form in FORMATS:
        assert file(summary, form)
    files = [
        export_selection.export_spec(summary.task_id, form, Selection(), embed_provenance=False) for form in FORMATS
    ]
    return [TABLE, reader.row_order_spec(QUERY), *files]


def test_discarding_a_result_deletes_its_artifacts() -> None:
    summary = with_table(random_documents(1, 30))
    assert all(state_of(summary, each) is ArtifactState.DONE for each in build_all_kinds(summary))
    assert len(keys_of_run(summary)) > 10
    assert result_store.discard(summary)
    assert keys_of_run(summary) == set()


def test_discarding_a_result_deletes_the_parts_of_dead_workers() -> None:
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    job.write("table", [b"from the dead worker" * 1000])
    assert result_store.discard(summary)
    assert [key for key in keys_of_run(summary) if seconds_left(key) > artifact_job.HEARTBEAT_TIMEOUT * 10] == []


def test_a_job_on_a_discarded_result_ends_and_leaves_nothing() -> None:
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    job.write("table", [b"late"])
    assert result_store.discard(summary)
    with pytest.raises(ResultGone):
        job.end({})
    job.release()
    assert {key.rpartition(":")[2] for key in keys_of_run(summary)} <= {"times"}


def test_artifacts_expire_with_the_result_or_earlier() -> None:
    summary = with_table(random_documents(2, 30))
    build_all_kinds(summary)
    lifetime = seconds_left(summary.key) + 0.1
    assert all(0 < seconds_left(key) <= lifetime for key in keys_of_run(summary))


def test_keeping_a_result_longer_keeps_its_artifacts() -> None:
    summary = with_table(random_documents(3, 30))
    until = ledger.now() + timedelta(hours=2)
    kept = result_store.keep(summary, until)
    assert kept is not None
    assert {round(seconds_left(key) / 60) for key in keys_of_run(summary)} == {120}
    assert numbers(kept, QUERY)
    assert round(seconds_left(artifacts.key_of(kept, TABLE, "table")) / 60) == 120


def test_an_artifact_finished_after_its_result_was_kept_lasts_as_long() -> None:
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    job.write("table", [b"x"])
    assert result_store.keep(summary, ledger.now() + timedelta(hours=2)) is not None
    job.end({})
    assert {round(seconds_left(key) / 60) for key in keys_of_run(summary)} == {120}


def test_artifacts_are_found_after_a_newer_run_replaced_the_result() -> None:
    documents = random_documents(4, 30)
    summary = with_table(documents)
    expected = value(summary)
    publish([{"newer": True}], summary.key, new_id())
    older = result_store.find_run_result(summary.key, summary.task_id, summary.run)
    assert older is not None
    assert older.key == summaries.older_key(summary.task_id)
    assert state_of(older) is ArtifactState.DONE
    assert len(numbers(older, QUERY)) == 30
    assert file(older, "json") == expected
    # The artifact is requested under the key that the result had before the newer run.
    spec = reader.row_order_spec(RowQuery(text="e"))
    build(summary, spec)
    assert state_of(older, spec) is ArtifactState.DONE


def test_the_second_newer_run_deletes_the_artifacts_with_the_result() -> None:
    summary = with_table(random_documents(5, 10))
    for _ in range(2):
        publish([{"newer": True}], summary.key, new_id())
    assert result_store.find_run_result(summary.key, summary.task_id, summary.run) is None
    assert keys_of_run(summary) == set()


@pytest.mark.parametrize("gone", ["expired", "discarded"])
def test_no_artifact_is_built_from_a_result_that_is_gone(gone: str) -> None:
    summary = result([{"_id": 1}], ttl_seconds=1 if gone == "expired" else 60)
    if gone == "discarded":
        assert result_store.discard(summary)
    eventually(lambda: result_store.find_result(summary.key) is None, within=5)
    build(summary, TABLE)
    assert keys_of_run(summary) == set()
    with pytest.raises(ResultGone):
        reader.profile_of(summary)


@pytest.mark.parametrize("spec", [reader.row_order_spec(QUERY), ArtifactSpec(ArtifactKind.ORDER, QUERY.to_document())])
def test_an_artifact_without_a_table_is_not_built_and_can_be_requested_again(spec: ArtifactSpec) -> None:
    summary = result([{"text": 1}])
    artifacts.request_artifact(summary, spec)
    build(summary, spec)
    assert state_of(summary, spec) is None
    build(summary, TABLE)
    build(summary, spec)
    assert state_of(summary, spec) is ArtifactState.DONE


def test_an_artifact_that_takes_too_long_fails_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = result([{"_id": number, "text": f"{number}" * 9} for number in range(100_000)])
    limit(monkeypatch, reading_seconds=0.05)
    build(summary, TABLE)
    artifact = artifacts.find_artifact(summary, TABLE)
    assert artifact is not None
    assert artifact.message == "It took longer than 0.05 seconds, which is the limit."
    assert {key.rpartition(":")[2] for key in keys_of_run(summary)} <= {"state", "mark", "times"}


def test_a_query_that_starts_after_the_time_limit_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, reading_seconds=0.1)
    with engine.open_database() as (database, _):
        time.sleep(0.3)
        with pytest.raises(duckdb.InterruptException):
            database.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 7")


def test_a_failed_artifact_can_be_requested_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_job, "FAILED_SECONDS", 1)
    summary = result([{"_id": 1}])
    job = ArtifactJob(summary, TABLE)
    assert job.begin() == 1
    job.write("table", [b"x"])
    job.fail("It did not work.")
    artifact = artifacts.request_artifact(summary, TABLE)
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, "It did not work.")
    assert ArtifactJob(summary, TABLE).begin() == 0
    eventually(lambda: state_of(summary) is None, within=5)
    build(summary, TABLE)
    assert state_of(summary) is ArtifactState.DONE


def test_an_export_of_an_unknown_task_fails_with_a_message() -> None:
    summary = result([{"_id": 1}])
    build(summary, TABLE)
    spec = export_selection.export_spec(summary.task_id, "csv", Selection(), embed_provenance=False)
    build(summary, spec)
    artifact = artifacts.find_artifact(summary, spec)
    assert artifact is not None
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, "There is no task with this id.")
    record(summary)


def test_an_unexpected_error_is_published_and_logged() -> None:
    summary = with_table([{"_id": 1}])
    wrong = ArtifactSpec(ArtifactKind.FILE, {"task_id": summary.task_id})
    with pytest.raises(KeyError):
        build(summary, wrong)
    artifact = artifacts.find_artifact(summary, wrong)
    assert artifact is not None
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, "It could not be worked out: KeyError.")


@pytest.mark.parametrize("change", [dict, lambda options: dict(reversed(options.items()))])
def test_the_order_of_options_makes_no_difference(change: Callable[[Any], Any]) -> None:
    options = {"sort": [["a", True]], "text": "é", "conditions": []}
    assert ArtifactSpec(ArtifactKind.ORDER, change(options)).name == ArtifactSpec(ArtifactKind.ORDER, options).name
    assert ArtifactSpec(ArtifactKind.FILE, options).name != ArtifactSpec(ArtifactKind.ORDER, options).name
    assert json.loads(artifacts.Artifact(ArtifactState.DONE, data=options).to_json())["data"] == options
