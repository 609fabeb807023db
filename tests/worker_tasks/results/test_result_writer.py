"""The parts of a result are written separately, then published in one step, and are invisible before that."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest

from tests.support import publish
from tests.worker_tasks.support import new_id
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import LimitExceeded
from worker_tasks.records import ledger
from worker_tasks.results import publishing, result_store, result_writer, summaries
from worker_tasks.results.result_writer import CHUNK_BYTES, Part, PartWriter, StagingLost

pytestmark = pytest.mark.usefixtures("servers")


def part_writer(run: str, number: int = 0, max_rows: int = 10_000, max_size: int = 2**28) -> PartWriter:
    return PartWriter(run, number, max_rows, max_size)


def write_part(run: str, number: int, *lines: bytes) -> Part:
    writer = part_writer(run, number)
    writer.append(lines)
    return writer.close()


def keys(mark: str) -> list[bytes]:
    names: Any = connections().results.keys(f"*{mark}*")
    return names


def value(key: str) -> bytes:
    stored: Any = connections().results.get(key)
    return stored


@pytest.mark.parametrize(
    "counts", [(0, 0), (0, 3), (3, 0), (0, 0, 2, 0, 1), (1, 1, 1), (50, 50), (49, 2, 51), (120, 0, 7)], ids=str
)
def test_parts_become_one_array_in_order_even_if_some_are_empty(counts: tuple[int, ...]) -> None:
    run, key = f"{new_id()}.1", f"result {new_id()}"
    lines = iter([b'{"_id":%d}' % number for number in range(sum(counts))])
    parts = [write_part(run, number, *(next(lines) for _ in range(count))) for number, count in enumerate(counts)]
    summary = publishing.publish(run, parts, key, new_id(), 60)
    expected = [{"_id": number} for number in range(sum(counts))]
    assert json.loads(value(key)) == expected
    assert (summary.count, summary.bytes, summary.segments) == (sum(counts), len(value(key)), list(counts))
    assert result_store.read_rows(summary, 0, 1000) == expected
    assert all(result_store.read_rows(summary, first, 1) == [expected[first]] for first in range(sum(counts)))
    assert keys(run) == []


def test_parts_can_be_written_in_any_order_and_concurrently() -> None:
    run, key = f"{new_id()}.1", f"result {new_id()}"
    writers = [part_writer(run, number) for number in range(3)]
    for row in range(2000):
        for number in (2, 0, 1):
            writers[number].append([b'{"part":%d,"row":%d,"text":"%s"}' % (number, row, b"x" * 500)])
    summary = publishing.publish(run, [writer.close() for writer in writers], key, new_id(), 60)
    rows = [(row["part"], row["row"]) for row in json.loads(value(key))]
    assert rows == [(number, row) for number in range(3) for row in range(2000)]
    assert summary.count == 6000


def test_two_writers_of_a_part_never_mix_their_rows() -> None:
    run, key = f"{new_id()}.1", f"result {new_id()}"
    late, first = part_writer(run), part_writer(run)
    late.append([b'{"old":"%s"}' % (b"x" * CHUNK_BYTES)])
    first.append([b'{"_id":1}'])
    late.append([b'{"old":"%s"}' % (b"y" * CHUNK_BYTES)])
    publishing.publish(run, [first.close()], key, new_id(), 60)
    late.append([b'{"old":"%s"}' % (b"z" * CHUNK_BYTES)])
    assert value(key) == b'[{"_id":1}]'
    late.discard()
    assert keys(run) == []


def test_a_writer_notices_that_redis_has_lost_its_rows() -> None:
    writer = part_writer(f"{new_id()}.1")
    writer.append([b'{"text":"%s"}' % (b"x" * CHUNK_BYTES)])
    connections().results.flushdb()
    with pytest.raises(StagingLost):
        writer.append([b'{"text":"%s"}' % (b"x" * CHUNK_BYTES)])


def test_sending_rows_again_after_a_lost_reply_changes_nothing() -> None:
    run, key = f"{new_id()}.1", f"result {new_id()}"
    writer = part_writer(run)
    writer.append([b'{"_id":1}'])
    (name,) = [f"staging:{run}:0:{writer.close().writer}"]
    # redis-py repeats the same command.
    connections().results.eval(result_writer._APPEND, 1, name, 0, b'[{"_id":1}', 60)
    publishing.publish(run, [writer.close()], key, new_id(), 60)
    assert value(key) == b'[{"_id":1}]'


@pytest.mark.parametrize("count", [1, 2, 3], ids="{} parts".format)
@pytest.mark.parametrize("damage", ["a hole", "a byte", "a row less", "gone"])
def test_a_damaged_part_is_not_published(count: int, damage: str) -> None:
    run, key = f"{new_id()}.1", f"result {new_id()}"
    old = publish([{"_id": "old"}], key, new_id())
    parts = [write_part(run, number, *[b'{"_id":%d}' % row for row in range(60)]) for number in range(count)]
    broken = result_writer.part_key(run, count - 1, parts[-1].writer)
    store = connections().results
    if damage == "a hole":
        store.setrange(broken, 20, b"\0" * 30)
    elif damage == "a byte":
        store.setrange(broken, parts[-1].size - 2, b"7")
    elif damage == "a row less":
        store.set(broken, value(broken)[:-11])
    else:
        store.delete(broken)
    with pytest.raises(StagingLost):
        publishing.publish(run, parts, key, new_id(), 60)
    assert result_store.find_result(key) == old
    assert json.loads(value(key)) == [{"_id": "old"}]


def test_publishing_again_after_a_lost_reply_changes_nothing() -> None:
    run, key, task_id = f"{new_id()}.1", f"result {new_id()}", new_id()
    parts = [write_part(run, 0, b'{"_id":1}'), write_part(run, 1, b'{"_id":2}')]
    first = publishing.publish(run, parts, key, task_id, 60)
    assert publishing.publish(run, parts, key, task_id, 60) == first
    assert value(key) == b'[{"_id":1},\n{"_id":2}]'


def task_with(key: str, task_id: str) -> dict[str, Any]:
    """The fields of a finished task that lead to its result."""
    return {"_id": task_id, "status": "SUCCESS", "result": json.dumps({"redis_key": key, "count": 1})}


def test_a_new_result_keeps_the_previous_one_and_discards_the_one_before() -> None:
    key, tasks = f"result {new_id()}", [new_id() for _ in range(3)]
    for number, task_id in enumerate(tasks):
        publish([{"run": number}], key, task_id, ttl_seconds=60 + number)
    oldest, older, newest = (result_store.find_task_result(task_with(key, task_id)) for task_id in tasks)
    assert oldest is None
    assert older is not None
    assert newest is not None
    assert older.key == summaries.older_key(tasks[1])
    assert result_store.read_rows(older, 0, 10) == [{"run": 1}]
    assert result_store.read_rows(newest, 0, 10) == [{"run": 2}]
    assert 0 < int(connections().results.ttl(older.key)) <= 61
    assert keys(tasks[0]) == [f"task_outcome:{tasks[0]}".encode()]


def test_a_result_kept_longer_outlives_any_number_of_runs() -> None:
    key, task_id = f"result {new_id()}", new_id()
    until = ledger.now() + timedelta(hours=1)
    assert result_store.keep(publish([{"kept": "yes"}], key, task_id), until) is not None
    for number in range(3):
        publish([{"run": number}], key, new_id())
    kept = result_store.find_task_result(task_with(key, task_id))
    assert kept is not None
    assert kept.expires_at == until
    assert result_store.read_rows(kept, 0, 10) == [{"kept": "yes"}]
    assert result_store.discard(kept)
    assert result_store.find_task_result(task_with(key, task_id)) is None


def test_unpublished_rows_are_invisible_and_expire() -> None:
    run = f"{new_id()}.1"
    writer = part_writer(run)
    writer.append([b'{"text":"%s"}' % (b"x" * CHUNK_BYTES)])
    (staged,) = keys(run)
    assert 0 < int(connections().results.ttl(staged)) <= result_writer.STAGING_SECONDS


def test_the_first_rows_can_be_glimpsed_during_writing() -> None:
    run = f"{new_id()}.1"
    assert result_writer.glimpse(None, 10) == []
    writer = PartWriter(run, 0, 10_000, 2**28, "writer")
    key = result_writer.part_key(run, 0, "writer")
    assert result_writer.glimpse(key, 10) == []
    writer.append([b'{"_id":%d}' % number for number in range(5)])
    writer.flush()
    assert result_writer.glimpse(key, 3) == [{"_id": 0}, {"_id": 1}, {"_id": 2}]
    writer.append([b'{"_id":%d,"text":"%s"}' % (number, b"x" * 2000) for number in range(5, 100)])
    writer.flush()
    rows = result_writer.glimpse(key, 1000)
    assert [row["_id"] for row in rows] == list(range(len(rows)))
    assert 30 < len(rows) < 40  # the complete rows within GLIMPSE_BYTES


def test_rows_found_beside_a_part_are_glimpsed_until_it_has_its_own() -> None:
    run = f"{new_id()}.1"
    writer = PartWriter(run, 0, 10_000, 2**28, "writer")
    result_writer.show_first_rows(writer.key, [b'{"_id":7}', b'{"_id":8}'])
    assert result_writer.glimpse(writer.key, 1) == [{"_id": 7}]
    assert result_writer.glimpse(writer.key, 10) == [{"_id": 7}, {"_id": 8}]
    writer.append([b'{"_id":1}'])
    writer.flush()
    assert result_writer.glimpse(writer.key, 10) == [{"_id": 1}]
    writer.discard()
    result_writer.forget_first_rows(writer.key)
    assert result_writer.glimpse(writer.key, 10) == []


def test_the_first_row_over_the_limit_is_refused() -> None:
    run = f"{new_id()}.1"
    writer = part_writer(run, max_rows=3)
    with pytest.raises(LimitExceeded, match="more than 3 rows, which is the limit"):
        writer.append([b"{}"] * 5)
    assert writer.close().rows == 3


def test_the_limit_of_bytes_includes_the_other_parts() -> None:
    run = f"{new_id()}.1"
    writer = part_writer(run, max_size=2**20)
    writer.count_other_parts(rows=10, size=2**20 - 100)
    with pytest.raises(LimitExceeded, match="more than 1 MiB, which is the limit"):
        writer.append([b'{"_id":%d}' % number for number in range(20)])
    part = writer.close()
    assert 0 < part.rows < 20
    assert part.size <= 100


def test_readers_see_complete_results_while_large_ones_replace_each_other() -> None:
    key = f"result {new_id()}"
    publish([{"run": 0}], key, new_id())
    done = threading.Event()

    def replace() -> None:
        for run in range(8):
            publish([{"run": run, "text": "x" * 100_000} for _ in range(40)], key, new_id(), parts=4)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    while not done.is_set():
        whole = json.loads(value(key))
        assert len({row["run"] for row in whole}) == 1
        assert len(whole) in {1, 40}
    thread.join()
