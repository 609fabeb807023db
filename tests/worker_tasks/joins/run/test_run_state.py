"""The state of a run in Redis: beginning and ending parts, replacing a part's writer, and stopping the run."""

import pytest

from tests.worker_tasks.support import new_id
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import LimitExceeded
from worker_tasks.joins.run import run_state
from worker_tasks.joins.run.run_state import Answer, Breakage, Writer
from worker_tasks.results.result_writer import Part, PartWriter, StagingLost

pytestmark = pytest.mark.usefixtures("servers")

WRITTEN = Part(rows=3, size=30, columns=["_id"], offsets=[1])


def open_run(parts: int, total: int | None = None) -> tuple[str, str]:
    task_id = new_id()
    run = run_state.name_of(task_id, 1)
    run_state.open_run(task_id, run, parts, total)
    return task_id, run


def begin_parts(task_id: str, run: str, count: int) -> list[Writer]:
    """Begins the first parts of a run."""
    begun = [run_state.begin_part(task_id, run, number) for number in range(count)]
    assert [each.answer for each in begun] == [Answer.BEGUN] * count
    return [each.writer for each in begun]


def test_the_writer_that_ends_the_last_part_is_told() -> None:
    task_id, run = open_run(3)
    started = begin_parts(task_id, run, 3)
    ended = [run_state.end_part(started[number], WRITTEN) for number in (2, 0, 1)]
    assert ended == [Answer.ENDED, Answer.ENDED, Answer.LAST]
    state = run_state.find_run(task_id)
    assert state is not None
    assert state.parts == [WRITTEN] * 3


def test_another_writer_can_begin_an_active_part_but_not_an_ended_one() -> None:
    task_id, run = open_run(2)
    first, second = run_state.begin_part(task_id, run, 0), run_state.begin_part(task_id, run, 0)
    assert (first.tries, first.previous) == (1, None)
    assert (second.tries, second.previous) == (2, first.writer)
    assert first.writer != second.writer
    run_state.end_part(second.writer, WRITTEN)
    assert run_state.begin_part(task_id, run, 0).answer is Answer.ENDED


def test_a_replaced_writer_changes_nothing() -> None:
    task_id, run = open_run(1)
    (late,) = begin_parts(task_id, run, 1)
    (writer,) = begin_parts(task_id, run, 1)
    assert run_state.advance(late, 10, 100) is None
    assert run_state.end_part(late, WRITTEN) is Answer.STALE
    assert run_state.leave_part(late, Breakage("43", 10, 200)) is Answer.STALE
    state = run_state.find_run(task_id)
    assert state is not None
    assert (state.parts, state.rows, state.first_key) == ([None], 0, writer.key)
    assert run_state.end_part(writer, WRITTEN) is Answer.LAST
    assert run_state.end_part(late, Part(1, 1, [], [])) is Answer.STALE
    state = run_state.find_run(task_id)
    assert state is not None
    assert state.parts == [WRITTEN]


def test_a_replaced_writer_cannot_write_rows() -> None:
    task_id, run = open_run(1)
    (late,) = begin_parts(task_id, run, 1)
    rows = PartWriter(run, 0, 100, 2**20, late.name, run_state.key_of(task_id))
    begin_parts(task_id, run, 1)
    rows.append([b'{"_id":1}'])
    with pytest.raises(StagingLost):
        rows.close()
    assert not connections().results.exists(late.key)


def test_ending_a_part_twice_gives_the_same_answer() -> None:
    task_id, run = open_run(1)
    (writer,) = begin_parts(task_id, run, 1)
    assert [run_state.end_part(writer, WRITTEN) for _ in range(2)] == [Answer.LAST] * 2


def test_a_part_of_an_older_run_changes_nothing_in_the_newer_one() -> None:
    task_id, old = open_run(1)
    (writer,) = begin_parts(task_id, old, 1)
    new = run_state.name_of(task_id, 2)
    connections().results.set(writer.key, b"[")
    assert run_state.open_run(task_id, new, 2, None)
    assert not connections().results.exists(writer.key)
    assert run_state.begin_part(task_id, old, 0).answer is Answer.STALE
    assert run_state.end_part(writer, WRITTEN) is Answer.STALE
    assert run_state.advance(writer, 10, 100) is None
    state = run_state.find_run(task_id)
    assert state is not None
    assert (state.run, state.parts, state.rows) == (new, [None, None], 0)


def test_a_retrying_worker_does_not_take_the_part_from_its_new_writer() -> None:
    task_id, run = open_run(1)
    (late,) = begin_parts(task_id, run, 1)
    assert run_state.begin_part(task_id, run, 0, last_name=late.name).tries == 2
    assert run_state.begin_part(task_id, run, 0, last_name=late.name).answer is Answer.STALE


def test_an_older_run_does_not_replace_a_newer_one() -> None:
    task_id, old = open_run(1)
    new = run_state.name_of(task_id, 10)
    assert run_state.open_run(task_id, new, 1, None)
    assert not run_state.open_run(task_id, old, 1, None)
    state = run_state.find_run(task_id)
    assert state is not None
    assert state.run == new


def test_leaving_a_part_does_not_count_as_a_try() -> None:
    task_id, run = open_run(1)
    (writer,) = begin_parts(task_id, run, 1)
    breakage = Breakage("43", rows=1000, requested=800)
    assert run_state.leave_part(writer, breakage) is Answer.LEFT
    again = run_state.begin_part(task_id, run, 0)
    assert (again.tries, again.previous, again.breakage) == (1, None, breakage)


def test_the_next_run_knows_how_a_part_broke_off() -> None:
    task_id, run = open_run(1)
    (writer,) = begin_parts(task_id, run, 1)
    breakage = Breakage("AutoReconnect", rows=0, requested=1, times=2)
    run_state.leave_part(writer, breakage)
    new = run_state.name_of(task_id, 2)
    run_state.open_run(task_id, new, 1, None)
    assert run_state.begin_part(task_id, new, 0).breakage == breakage


def test_the_progress_of_all_parts_is_summed() -> None:
    task_id, run = open_run(2, total=1000)
    first, second = begin_parts(task_id, run, 2)
    run_state.advance(first, 10, 100)
    run_state.advance(second, 5, 50)
    state = run_state.advance(first, 20, 200)
    assert state is not None
    assert (state.rows, state.size, state.total, state.stop) == (25, 250, 1000, None)


def test_stopping_a_run_without_active_parts_leaves_its_end_to_the_caller() -> None:
    task_id, run = open_run(3)
    (writer,) = begin_parts(task_id, run, 1)
    run_state.end_part(writer, WRITTEN)
    assert run_state.request_stop(task_id) is Answer.IDLE


def test_stopping_a_run_with_active_parts_leaves_its_end_to_the_last_part() -> None:
    task_id, run = open_run(3)
    first, second = begin_parts(task_id, run, 2)
    assert run_state.request_stop(task_id) is Answer.RUNNING
    state = run_state.advance(first, 1, 1)
    assert state is not None
    assert state.stop == run_state.CANCELLED
    assert run_state.end_part(first, WRITTEN) is Answer.ENDED
    assert run_state.end_part(second, WRITTEN) is Answer.LAST


def test_a_stop_before_the_first_run_cancels_the_next_run_only() -> None:
    task_id = new_id()
    assert run_state.request_stop(task_id) is Answer.NOTHING
    assert run_state.find_run(task_id) is None
    first, second = run_state.name_of(task_id, 1), run_state.name_of(task_id, 2)
    run_state.open_run(task_id, first, 1, None)
    assert run_state.begin_part(task_id, first, 0).stop == run_state.CANCELLED
    run_state.open_run(task_id, second, 1, None)
    assert run_state.begin_part(task_id, second, 0).stop is None


def test_stopping_an_older_run_does_not_stop_the_newer_one() -> None:
    task_id, old = open_run(1)
    new = run_state.name_of(task_id, 2)
    run_state.open_run(task_id, new, 1, None)
    assert run_state.request_stop(task_id, run=old) is Answer.NOTHING
    assert run_state.begin_part(task_id, new, 0).stop is None
    assert run_state.request_stop(task_id, run=new) is Answer.RUNNING


def test_the_first_reason_to_stop_counts() -> None:
    task_id, _ = open_run(1)
    reason = run_state.failure_to_text(LimitExceeded("It has more than 5 rows."))
    run_state.request_stop(task_id, reason)
    run_state.request_stop(task_id)
    state = run_state.find_run(task_id)
    assert state is not None
    assert state.stop == reason
