"""Work that is asked for, begun by one worker, seen when it is done, and begun anew when its worker is gone."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import duckdb
import pytest

from tests.support import eventually, publish
from tests.worker_tasks.analysis.support import file, keys, numbers, random_documents, record, result, value, with_table
from tests.worker_tasks.support import new_id
from worker_tasks.analysis import artifact_job as working
from worker_tasks.analysis import artifacts, engine, export_selection, reader
from worker_tasks.analysis.artifact_job import GIVEN_UP, MAX_TIMES, ArtifactJob
from worker_tasks.analysis.artifacts import REQUESTED_SECONDS, TABLE, ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.analysis.tasks import derive
from worker_tasks.infra.connections import connections
from worker_tasks.infra.settings import Settings, settings
from worker_tasks.queue import celery_app
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import ResultGone, Summary

pytestmark = pytest.mark.usefixtures("servers")

VIEW = RowQuery(sort=(("text", True),))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker counts as lost after a second."""
    monkeypatch.setattr(working, "BEGUN_SECONDS", 1)


@pytest.fixture(autouse=True)
def queue(servers: None) -> Iterator[None]:
    """What is asked for here is for no worker."""
    yield
    connections().queue.delete("celery")


def run(summary: Summary, derivation: ArtifactSpec) -> None:
    derive(summary.key, summary.task_id, summary.run, str(derivation.kind), derivation.options)


def state(summary: Summary, derivation: ArtifactSpec = TABLE) -> ArtifactState | None:
    found = artifacts.find_artifact(summary, derivation)
    return found.state if found else None


def left(key: str) -> float:
    found: Any = connections().results.pttl(key)
    return float(found) / 1000


def of_run(summary: Summary) -> set[str]:
    return keys(f"derived:{summary.run}:*") | keys(f"derived_of:{summary.run}")


def limited(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    small: Settings = settings().model_copy(update=limits)
    for module in ("engine", "tasks"):
        monkeypatch.setattr(f"worker_tasks.analysis.{module}.settings", lambda: small)


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be sent to the workers; one may be there, and must not do what the tests do."""
    sent: list[Any] = []
    monkeypatch.setattr(celery_app.app, "publish_artifact", lambda *what: sent.append(what))
    return sent


def test_what_is_asked_for_twice_is_published_once(published: list[Any]) -> None:
    summary = result([{"_id": 1}])
    assert [artifacts.request_artifact(summary, TABLE).state for _ in range(3)] == [ArtifactState.REQUESTED] * 3
    assert published == [(summary.key, summary.task_id, summary.run, TABLE.kind, TABLE.options)]
    (key,) = of_run(summary)
    assert 0 < left(key) <= REQUESTED_SECONDS
    run(summary, TABLE)
    assert artifacts.request_artifact(summary, TABLE).state is ArtifactState.DONE
    assert len(published) == 1


def test_what_is_done_beside_queries_keeps_the_time_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = with_table([{"_id": number} for number in range(3)])
    wanted = export_selection.export_spec(summary.task_id, "json", Selection(columns=("_id",)), embed_provenance=False)
    limited = settings().model_copy(update={"reading_seconds": 0.0})
    # The engine has its own clock, which would end the queries before.
    monkeypatch.setattr(working, "settings", lambda: limited)
    run(summary, wanted)
    found = artifacts.find_artifact(summary, wanted)
    assert found is not None
    assert found.state is ArtifactState.FAILED
    assert "which is the limit" in (found.message or "")


def test_of_many_workers_one_begins() -> None:
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
    assert state(summary) is ArtifactState.BEGUN


def test_work_that_is_done_is_not_begun_again() -> None:
    summary = with_table([{"_id": 1}])
    assert ArtifactJob(summary, TABLE).begin() == 0
    before = of_run(summary)
    run(summary, TABLE)
    assert of_run(summary) == before


@pytest.mark.usefixtures("short")
def test_the_work_of_a_dead_worker_is_begun_anew_and_what_it_still_says_is_not_heard() -> None:
    summary = result([{"_id": 1}])
    dead = ArtifactJob(summary, TABLE)
    assert dead.begin() == 1
    dead.write("table", [b"of the dead"])
    eventually(lambda: state(summary) is None, within=5)
    alive = ArtifactJob(summary, TABLE)
    assert alive.begin() == 2
    alive.write("table", [b"of the living"])
    dead.end({"by": "dead"})
    dead.fail("by the dead")
    assert state(summary) is ArtifactState.BEGUN
    alive.end({"by": "alive"})
    dead.fail("by the dead")
    found = artifacts.find_artifact(summary, TABLE)
    assert found is not None
    assert found.data == {"by": "alive"}
    assert artifacts.read_range(summary, TABLE, "table") == b"of the living"


@pytest.mark.usefixtures("short")
def test_a_worker_that_lives_keeps_its_work_however_long_it_takes() -> None:
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    with work.alive():
        work.report(3, 10)
        until = time.monotonic() + 1.8
        while time.monotonic() < until:
            assert ArtifactJob(summary, TABLE).begin() == 0
            time.sleep(0.1)
        found = artifacts.find_artifact(summary, TABLE)
        assert found is not None
        assert (found.state, found.done, found.total) == (ArtifactState.BEGUN, 3, 10)
        work.end({})
    assert state(summary) is ArtifactState.DONE


def test_work_that_takes_its_worker_down_again_and_again_is_given_up() -> None:
    summary = result([{"_id": 1}])
    for number in range(MAX_TIMES):
        assert ArtifactJob(summary, TABLE).begin() == number + 1
        connections().results.delete(*(f"derived:{summary.run}:table:{name}" for name in ("state", "mark")))
    run(summary, TABLE)
    found = artifacts.find_artifact(summary, TABLE)
    assert found is not None
    assert (found.state, found.message) == (ArtifactState.FAILED, GIVEN_UP)
    assert artifacts.request_artifact(summary, TABLE).state is ArtifactState.FAILED
    assert ArtifactJob(summary, TABLE).begin() == 0


def test_what_is_written_is_seen_when_all_is_done_and_not_before() -> None:
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    assert work.write("table", [b"one ", b"", b"two"]) == 7
    assert work.write("empty", []) == 0
    assert artifacts.read_range(summary, TABLE, "table") == b""
    work.end({"size": 7})
    assert artifacts.read_range(summary, TABLE, "table") == b"one two"
    assert artifacts.read_range(summary, TABLE, "table", 4, 5) == b"tw"
    assert b"".join(artifacts.read_artifact(summary, TABLE, "table", 7)) == b"one two"
    with pytest.raises(ResultGone):
        list(artifacts.read_artifact(summary, TABLE, "table", 8))


def everything_of(summary: Summary) -> list[ArtifactSpec]:
    """Something of each kind was worked out."""
    assert numbers(summary, VIEW)
    for form in FORMATS:
        assert file(summary, form)
    files = [
        export_selection.export_spec(summary.task_id, form, Selection(), embed_provenance=False) for form in FORMATS
    ]
    return [TABLE, reader.row_order_spec(VIEW), *files]


def test_a_result_that_is_discarded_leaves_nothing_behind() -> None:
    summary = with_table(random_documents(1, 30))
    assert all(state(summary, each) is ArtifactState.DONE for each in everything_of(summary))
    assert len(of_run(summary)) > 10
    assert result_store.discard(summary)
    assert of_run(summary) == set()


def test_a_result_that_is_discarded_leaves_nothing_of_a_worker_that_died_either() -> None:
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    work.write("table", [b"of the dead" * 1000])
    assert result_store.discard(summary)
    assert [key for key in of_run(summary) if left(key) > working.BEGUN_SECONDS * 10] == []


def test_a_result_that_was_discarded_meanwhile_ends_the_work_and_leaves_nothing() -> None:
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    work.write("table", [b"late"])
    assert result_store.discard(summary)
    with pytest.raises(ResultGone):
        work.end({})
    work.release()
    assert {key.rpartition(":")[2] for key in of_run(summary)} <= {"times"}


def test_all_ends_with_the_result_or_before() -> None:
    summary = with_table(random_documents(2, 30))
    everything_of(summary)
    limit = left(summary.key) + 0.1
    assert all(0 < left(key) <= limit for key in of_run(summary))


def test_what_was_derived_stays_as_long_as_a_result_that_is_kept() -> None:
    summary = with_table(random_documents(3, 30))
    until = ledger.now() + timedelta(hours=2)
    kept = result_store.keep(summary, until)
    assert kept is not None
    assert {round(left(key) / 60) for key in of_run(summary)} == {120}
    assert numbers(kept, VIEW)
    assert round(left(artifacts.key_of(kept, TABLE, "table")) / 60) == 120


def test_a_result_that_is_kept_while_it_is_worked_on_has_its_table_as_long() -> None:
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    work.write("table", [b"x"])
    assert result_store.keep(summary, ledger.now() + timedelta(hours=2)) is not None
    work.end({})
    assert {round(left(key) / 60) for key in of_run(summary)} == {120}


def test_what_was_derived_is_found_after_a_newer_run_took_the_place_of_the_result() -> None:
    documents = random_documents(4, 30)
    summary = with_table(documents)
    expected = value(summary)
    publish([{"newer": True}], summary.key, new_id())
    older = result_store.find_run_result(summary.key, summary.task_id, summary.run)
    assert older is not None
    assert older.key == result_store.older_key(summary.task_id)
    assert state(older) is ArtifactState.DONE
    assert len(numbers(older, VIEW)) == 30
    assert file(older, "json") == expected
    # By the name that it had when it was asked for.
    wanted = reader.row_order_spec(RowQuery(text="e"))
    run(summary, wanted)
    assert state(older, wanted) is ArtifactState.DONE


def test_what_replaces_the_result_but_one_takes_along_what_was_derived_from_it() -> None:
    summary = with_table(random_documents(5, 10))
    for _ in range(2):
        publish([{"newer": True}], summary.key, new_id())
    assert result_store.find_run_result(summary.key, summary.task_id, summary.run) is None
    assert of_run(summary) == set()


@pytest.mark.parametrize("gone", ["expired", "discarded"])
def test_of_a_result_that_is_gone_nothing_is_worked_out(gone: str) -> None:
    summary = result([{"_id": 1}], ttl_seconds=1 if gone == "expired" else 60)
    if gone == "discarded":
        assert result_store.discard(summary)
    eventually(lambda: result_store.find_result(summary.key) is None, within=5)
    run(summary, TABLE)
    assert of_run(summary) == set()
    with pytest.raises(ResultGone):
        reader.profile_of(summary)


@pytest.mark.parametrize(
    "derivation", [reader.row_order_spec(VIEW), ArtifactSpec(ArtifactKind.ORDER, VIEW.to_document())]
)
def test_without_a_table_nothing_else_is_worked_out_and_it_may_be_asked_for_again(derivation: ArtifactSpec) -> None:
    summary = result([{"text": 1}])
    artifacts.request_artifact(summary, derivation)
    run(summary, derivation)
    assert state(summary, derivation) is None
    run(summary, TABLE)
    run(summary, derivation)
    assert state(summary, derivation) is ArtifactState.DONE


def test_what_takes_too_long_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = result([{"_id": number, "text": f"{number}" * 9} for number in range(100_000)])
    limited(monkeypatch, reading_seconds=0.05)
    run(summary, TABLE)
    found = artifacts.find_artifact(summary, TABLE)
    assert found is not None
    assert found.message == "It took longer than 0.05 seconds, which is the limit."
    assert {key.rpartition(":")[2] for key in of_run(summary)} <= {"state", "mark", "times"}


def test_what_takes_too_long_ends_also_where_no_query_ran_when_it_was_over(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, reading_seconds=0.1)
    with engine.open_database() as (database, _):
        time.sleep(0.3)
        with pytest.raises(duckdb.InterruptException):
            database.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 7")


def test_what_failed_may_be_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "FAILED_SECONDS", 1)
    summary = result([{"_id": 1}])
    work = ArtifactJob(summary, TABLE)
    assert work.begin() == 1
    work.write("table", [b"x"])
    work.fail("It did not work.")
    found = artifacts.request_artifact(summary, TABLE)
    assert (found.state, found.message) == (ArtifactState.FAILED, "It did not work.")
    assert ArtifactJob(summary, TABLE).begin() == 0
    eventually(lambda: state(summary) is None, within=5)
    run(summary, TABLE)
    assert state(summary) is ArtifactState.DONE


def test_a_task_that_is_not_there_fails_its_files_and_says_so() -> None:
    summary = result([{"_id": 1}])
    run(summary, TABLE)
    wanted = export_selection.export_spec(summary.task_id, "csv", Selection(), embed_provenance=False)
    run(summary, wanted)
    found = artifacts.find_artifact(summary, wanted)
    assert found is not None
    assert (found.state, found.message) == (ArtifactState.FAILED, "There is no task with this id.")
    record(summary)


def test_a_failure_that_nobody_thought_of_is_told_and_not_kept_from_the_log() -> None:
    summary = with_table([{"_id": 1}])
    wrong = ArtifactSpec(ArtifactKind.FILE, {"task_id": summary.task_id})
    with pytest.raises(KeyError):
        run(summary, wrong)
    found = artifacts.find_artifact(summary, wrong)
    assert found is not None
    assert (found.state, found.message) == (ArtifactState.FAILED, "It could not be worked out: KeyError.")


@pytest.mark.parametrize("change", [dict, lambda options: dict(reversed(options.items()))])
def test_the_same_options_in_any_order_are_the_same_work(change: Callable[[Any], Any]) -> None:
    options = {"sort": [["a", True]], "text": "é", "conditions": []}
    assert ArtifactSpec(ArtifactKind.ORDER, change(options)).name == ArtifactSpec(ArtifactKind.ORDER, options).name
    assert ArtifactSpec(ArtifactKind.FILE, options).name != ArtifactSpec(ArtifactKind.ORDER, options).name
    assert json.loads(artifacts.Artifact(ArtifactState.DONE, data=options).to_json())["data"] == options
