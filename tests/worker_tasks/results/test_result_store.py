"""A published result is one JSON array that is read by ranges of rows, and all its keys expire together."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex
from redis.exceptions import RedisError

from development.servers import Server
from tests import support
from tests.support import paused
from tests.worker_tasks.support import answered_in_time, new_id
from worker_tasks.infra.connections import Document, connections
from worker_tasks.results import result_store
from worker_tasks.results.result_store import PAGE_ROWS, ResultGone
from worker_tasks.results.result_writer import CHUNK_BYTES
from worker_tasks.results.summaries import Summary

pytestmark = pytest.mark.usefixtures("servers")

OID = ObjectId("65a000000000000000000001")


def rows(count: int, **fields: Any) -> list[Document]:
    """Rows of different lengths."""
    return [{"_id": number, "text": "ü" * (number % 7), **fields} for number in range(count)]


def publish(documents: Sequence[Document], key: str | None = None, ttl_seconds: int = 300, parts: int = 1) -> Summary:
    return support.publish(documents, key or f"result {new_id()}", new_id(), ttl_seconds, parts=parts)


def value(key: str) -> bytes:
    stored: Any = connections().results.get(key)
    return stored


def keys_of(summary: Summary) -> dict[str, int]:
    """All keys of this result, with their time to live in seconds."""
    redis: Any = connections().results
    keys = [key for name in (summary.key, summary.task_id) for key in redis.keys(f"*{name}*")]
    return {key.decode(): redis.ttl(key) for key in keys}


def read_page(summary: Summary, number: int) -> list[dict[str, Any]] | None:
    """The rows of a page, counted from 1."""
    return result_store.read_rows(summary, (number - 1) * PAGE_ROWS, PAGE_ROWS)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 2 * PAGE_ROWS, 1234])
def test_pages_are_slices_of_the_value(count: int, parts: int) -> None:
    summary = publish(rows(count), parts=parts)
    whole = json.loads(value(summary.key))
    assert whole == rows(count)
    assert (summary.count, summary.bytes) == (count, len(value(summary.key)))
    for page in range(1, count // PAGE_ROWS + 3):
        assert read_page(summary, page) == whole[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]


@pytest.mark.parametrize("parts", [1, 4])
def test_any_range_of_rows_can_be_read(parts: int) -> None:
    summary = publish(rows(333), parts=parts)
    for first in (0, 1, 49, 50, 51, 83, 84, 99, 100, 249, 250, 299, 300, 331, 332, 333, 1000):
        for limit in (1, 2, 49, 50, 51, 150, 1000):
            assert result_store.read_rows(summary, first, limit) == rows(333)[first : first + limit], (first, limit)


def test_the_whole_value_is_read_in_chunks() -> None:
    summary = publish([{"text": "ü" * CHUNK_BYTES} for _ in range(3)])
    chunks = list(result_store.read_chunks(summary))
    assert b"".join(chunks) == value(summary.key)
    assert max(map(len, chunks)) == result_store.CHUNK_BYTES


def test_reading_fails_if_the_value_is_replaced_meanwhile() -> None:
    summary = publish([{"text": "x" * CHUNK_BYTES} for _ in range(3)])
    chunks = result_store.read_chunks(summary)
    next(chunks)
    publish([{"text": "y" * CHUNK_BYTES} for _ in range(3)], key=summary.key)
    with pytest.raises(ResultGone):
        next(chunks)


def test_the_value_is_a_json_array_with_one_document_per_line() -> None:
    assert value(publish([{"a": 1}, {"b": "two\nlines"}]).key) == b'[{"a":1},\n{"b":"two\\nlines"}]'
    assert value(publish([]).key) == b"[]"


@pytest.mark.parametrize(
    ("stored", "as_json"),
    [
        ("ünïcödé 🙂 \u2028 \x00", "ünïcödé 🙂 \u2028 \x00"),
        (None, None),
        (2**53, 2**53),
        (Int64(7), 7),
        (1.5, 1.5),
        (float("nan"), {"$numberDouble": "NaN"}),
        (Decimal128("12.30"), {"$numberDecimal": "12.30"}),
        (OID, {"$oid": str(OID)}),
        (datetime(2024, 2, 29, 12, 30, 0, 250_000, tzinfo=UTC), {"$date": "2024-02-29T12:30:00.250Z"}),
        (datetime(1950, 1, 1, tzinfo=UTC), {"$date": {"$numberLong": "-631152000000"}}),
        (Binary(b"\xff"), {"$binary": {"base64": "/w==", "subType": "00"}}),
        (Binary.from_uuid(UUID(int=1)), {"$uuid": str(UUID(int=1))}),
        (Regex("^a", "i"), {"$regularExpression": {"pattern": "^a", "options": "i"}}),
        ({"list": [[{"deep": OID}]]}, {"list": [[{"deep": {"$oid": str(OID)}}]]}),
    ],
    ids=lambda stored: type(stored).__name__,
)
def test_values_are_stored_as_relaxed_extended_json(stored: Any, as_json: Any) -> None:
    summary = publish([{"value": stored}])
    assert json.loads(value(summary.key)) == read_page(summary, 1) == [{"value": as_json}]


def test_rows_larger_than_a_chunk_are_stored_completely() -> None:
    documents = [{"_id": number, "text": "ü" * (CHUNK_BYTES * number // 5)} for number in range(8)]
    summary = publish(documents)
    assert summary.bytes > 5 * CHUNK_BYTES
    assert json.loads(value(summary.key)) == read_page(summary, 1) == documents


def test_columns_come_from_all_rows_in_order_of_first_appearance() -> None:
    documents = [{"_id": 1, "b": 1}, *({"_id": number} for number in range(2, 200)), {"a": 1, "_id": 200, "b": 2}]
    assert publish(documents).columns == ["_id", "b", "a"]
    assert publish([]).columns == []


def test_a_published_result_is_found_with_its_times() -> None:
    summary = publish(rows(3), ttl_seconds=60)
    assert result_store.find_result(summary.key) == summary
    assert summary.expires_at - summary.published_at == timedelta(seconds=60)
    assert abs(datetime.now(UTC) - summary.published_at) < timedelta(minutes=1)
    assert result_store.find_outcome(summary.task_id) == {"redis_key": summary.key, "count": 3}


def test_all_keys_of_a_result_expire_together() -> None:
    summary = publish(rows(200), ttl_seconds=60)
    keys = keys_of(summary)
    assert len(keys) == 4
    assert all(50 <= seconds <= 60 for seconds in keys.values()), keys


def test_an_unpublished_result_is_not_found() -> None:
    assert result_store.find_result("result of nobody") is None
    assert result_store.find_outcome(new_id()) is None


@pytest.mark.parametrize("gone", ["{}", "result_index:{}", "result_summary:{}"], ids=["value", "index", "summary"])
def test_a_result_without_one_of_its_keys_is_gone(gone: str) -> None:
    """A full Redis with ``volatile-ttl`` evicts single keys."""
    summary = publish(rows(120), ttl_seconds=60)
    assert connections().results.delete(gone.format(summary.key)) == 1
    assert [read_page(summary, number) for number in (1, 2, 3)] == [None] * 3


def test_an_expired_empty_result_has_no_pages() -> None:
    summary = publish([])
    connections().results.delete(*keys_of(summary))
    assert (result_store.find_result(summary.key), read_page(summary, 1)) == (None, None)


def test_only_the_new_result_has_pages_after_a_replacement() -> None:
    old = publish(rows(120))
    new = publish(rows(60, new=True), key=old.key)
    assert [read_page(old, number) for number in (1, 2, 3, 4)] == [None] * 4
    assert read_page(new, 2) == rows(60, new=True)[PAGE_ROWS:]
    assert result_store.find_result(old.key) == new


def test_readers_see_one_complete_result_or_nothing_during_replacements() -> None:
    key = f"result {new_id()}"
    expected = {count: rows(count, run=count) for count in (3, 70, 140)}
    publish(expected[3], key=key)

    def replace() -> None:
        for count in [70, 3, 140] * 20:
            publish(expected[count], key=key)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(replace)
        while not writing.done():
            summary = result_store.find_result(key)
            assert summary is not None
            assert read_page(summary, 1) in (None, expected[summary.count][:PAGE_ROWS])
            whole = json.loads(value(key))
            assert whole == expected[len(whole)]
        writing.result()


def test_reading_from_a_frozen_redis_fails_in_time(redis_server: Server) -> None:
    summary = publish(rows(1))
    with paused(redis_server), answered_in_time(), pytest.raises(RedisError):
        read_page(summary, 1)
