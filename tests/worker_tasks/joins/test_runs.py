"""A run in Redis: its parts begin and end, the last one is told so, a stop is heard."""

import pytest

from tests.worker_tasks.support import new_id
from worker_tasks.errors import LimitExceeded
from worker_tasks.joins import runs
from worker_tasks.joins.runs import Answer
from worker_tasks.staging import Part

pytestmark = pytest.mark.usefixtures("servers")

WRITTEN = Part(rows=3, size=30, columns=["_id"], offsets=[1])


def opened(parts: int, total: int | None = None) -> tuple[str, str]:
    task_id = new_id()
    run = runs.name_of(task_id, 1)
    runs.open_run(task_id, run, parts, total)
    return task_id, run


def test_the_part_that_ends_last_is_told_so() -> None:
    task_id, run = opened(3)
    assert [runs.begin_part(task_id, run, number).answer for number in range(3)] == [Answer.BEGUN] * 3
    ended = [runs.end_part(task_id, run, number, WRITTEN) for number in (2, 0, 1)]
    assert ended == [Answer.ENDED, Answer.ENDED, Answer.LAST]
    state = runs.find(task_id)
    assert state is not None
    assert state.parts == [WRITTEN] * 3


def test_a_part_that_was_lost_is_begun_again_and_one_that_ended_is_not() -> None:
    task_id, run = opened(2)
    assert runs.begin_part(task_id, run, 0) == (Answer.BEGUN, 1, None)
    assert runs.begin_part(task_id, run, 0) == (Answer.BEGUN, 2, None)
    runs.end_part(task_id, run, 0, WRITTEN)
    assert runs.begin_part(task_id, run, 0).answer is Answer.ENDED


def test_a_part_of_an_older_run_changes_nothing() -> None:
    task_id, old = opened(1)
    new = runs.name_of(task_id, 2)
    runs.open_run(task_id, new, 2, None)
    assert runs.begin_part(task_id, old, 0).answer is Answer.STALE
    assert runs.end_part(task_id, old, 0, WRITTEN) is Answer.STALE
    assert runs.advance(task_id, old, 0, 10, 100) is None
    state = runs.find(task_id)
    assert state is not None
    assert (state.run, state.parts, state.rows) == (new, [None, None], 0)


def test_what_all_parts_have_is_added_up() -> None:
    task_id, run = opened(2, total=1000)
    runs.advance(task_id, run, 0, 10, 100)
    runs.advance(task_id, run, 1, 5, 50)
    state = runs.advance(task_id, run, 0, 20, 200)
    assert state is not None
    assert (state.rows, state.size, state.total, state.stop) == (25, 250, 1000, None)


def test_a_run_that_nothing_is_under_way_of_is_ended_by_whoever_stops_it() -> None:
    task_id, run = opened(3)
    runs.begin_part(task_id, run, 0)
    runs.end_part(task_id, run, 0, WRITTEN)
    assert runs.ask_to_stop(task_id) is Answer.IDLE


def test_a_run_that_is_under_way_is_ended_by_the_last_part_of_it() -> None:
    task_id, run = opened(3)
    runs.begin_part(task_id, run, 0)
    runs.begin_part(task_id, run, 1)
    assert runs.ask_to_stop(task_id) is Answer.RUNNING
    state = runs.advance(task_id, run, 0, 1, 1)
    assert state is not None
    assert state.stop == runs.CANCELLED
    assert runs.end_part(task_id, run, 0, WRITTEN) is Answer.ENDED
    assert runs.end_part(task_id, run, 1, WRITTEN) is Answer.LAST


def test_a_stop_that_comes_before_the_run_is_not_lost() -> None:
    task_id = new_id()
    assert runs.ask_to_stop(task_id) is Answer.NOTHING
    run = runs.name_of(task_id, 1)
    runs.open_run(task_id, run, 1, None)
    assert runs.begin_part(task_id, run, 0) == (Answer.BEGUN, 1, runs.CANCELLED)


def test_the_first_reason_to_stop_counts() -> None:
    task_id, _ = opened(1)
    reason = runs.failure_to_text(LimitExceeded("It has more than 5 rows."))
    runs.ask_to_stop(task_id, reason)
    runs.ask_to_stop(task_id)
    state = runs.find(task_id)
    assert state is not None
    assert state.stop == reason
    failure = runs.failure_from_text(reason)
    assert (type(failure), str(failure)) == (LimitExceeded, "It has more than 5 rows.")


def test_a_run_that_never_was_is_not_found() -> None:
    assert runs.find(new_id()) is None
