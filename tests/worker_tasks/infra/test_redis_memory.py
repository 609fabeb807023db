"""Results leave some of Redis's memory to the queue, and a refusal is never based on a cached reading."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import refusing
from worker_tasks.infra import redis_memory
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import StorageFull

pytestmark = pytest.mark.usefixtures("servers")

MIB = 1024 * 1024


@pytest.fixture
def limit() -> Iterator[None]:
    """Removes the memory limit after the test."""
    yield
    connections().results.config_set("maxmemory", 0)


def free(size: int) -> None:
    """Sets the limit so that about ``size`` bytes are free."""
    used = int(connections().results.info("memory")["used_memory"])
    connections().results.config_set("maxmemory", used + size)


def test_a_redis_without_a_limit_has_room_for_anything() -> None:
    assert redis_memory.room_left(fresh=True) is None
    redis_memory.require_room(10**12)


@pytest.mark.parametrize(("mib", "kept"), [(4, 1), (60, 15), (100, 16), (320, 16), (1000, 50)])
def test_results_leave_the_queue_16_mib_or_a_twentieth_but_never_more_than_a_quarter(mib: int, kept: int) -> None:
    assert redis_memory.reserve(mib * MIB) == kept * MIB


def test_results_stop_before_the_reserve_and_the_queue_still_accepts_messages(limit: None) -> None:
    free(100 * MIB)
    left = redis_memory.room_left(fresh=True)
    memory: Any = connections().results.info("memory")
    assert left is not None
    # Redis allocates and frees other memory between the two readings.
    assert abs(memory["maxmemory"] - memory["used_memory"] - redis_memory.reserve(memory["maxmemory"]) - left) < 5 * MIB
    redis_memory.require_room(left // 2)
    with pytest.raises(StorageFull, match="no room for the result"):
        redis_memory.require_room(left * 2)
    redis_memory.require_queue()


def test_results_are_accepted_as_soon_as_there_is_room_again(limit: None) -> None:
    free(0)
    redis_memory.room_left(fresh=True)
    with pytest.raises(StorageFull):
        redis_memory.require_room()
    free(100 * MIB)
    redis_memory.require_room()


def test_a_full_queue_has_no_room_for_another_task(limit: None) -> None:
    free(redis_memory.QUEUE_ROOM // 2)
    with pytest.raises(StorageFull, match="no room for another task"):
        redis_memory.require_queue()


def test_checking_the_queue_changes_nothing() -> None:
    before = connections().queue.dbsize()
    redis_memory.require_queue()
    assert connections().queue.dbsize() == before


def test_results_have_no_reserve_if_redis_does_not_report_its_memory_use() -> None:
    store: Any = connections().results
    store.execute_command("ACL SETUSER", "default", "-info")
    try:
        assert redis_memory.room_left(fresh=True) is None
    finally:
        store.execute_command("ACL SETUSER", "default", "+info")


def test_a_full_redis_still_reports_its_memory_use() -> None:
    with refusing("OOM"):
        left = redis_memory.room_left(fresh=True)
    assert left is not None
    assert left < 0
