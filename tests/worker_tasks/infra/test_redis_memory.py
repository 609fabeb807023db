"""Results leave some of Redis to the queue; whether there is room is asked, never guessed."""

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
    """Whatever limit the test sets is gone afterwards."""
    yield
    connections().results.config_set("maxmemory", 0)


def free(size: int) -> None:
    """Sets the limit so that about this much is free."""
    used = int(connections().results.info("memory")["used_memory"])
    connections().results.config_set("maxmemory", used + size)


def test_a_redis_without_a_limit_has_room_for_anything() -> None:
    assert redis_memory.room_left(fresh=True) is None
    redis_memory.require_room(10**12)


@pytest.mark.parametrize(("mib", "kept"), [(4, 1), (60, 15), (100, 16), (320, 16), (1000, 50)])
def test_results_leave_the_queue_16_mib_or_a_twentieth_but_never_more_than_a_quarter(mib: int, kept: int) -> None:
    assert redis_memory.reserve(mib * MIB) == kept * MIB


def test_results_stop_before_the_reserve_and_the_queue_still_takes_messages(limit: None) -> None:
    free(100 * MIB)
    left = redis_memory.room_left(fresh=True)
    memory: Any = connections().results.info("memory")
    assert left is not None
    # Other memory of Redis comes and goes between the two looks.
    assert abs(memory["maxmemory"] - memory["used_memory"] - redis_memory.reserve(memory["maxmemory"]) - left) < 5 * MIB
    redis_memory.require_room(left // 2)
    with pytest.raises(StorageFull, match="no room for the result"):
        redis_memory.require_room(left * 2)
    redis_memory.require_queue()


def test_that_there_is_no_room_is_forgotten_as_soon_as_there_is_some(limit: None) -> None:
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


def test_the_look_at_the_queue_changes_nothing() -> None:
    before = connections().queue.dbsize()
    redis_memory.require_queue()
    assert connections().queue.dbsize() == before


def test_where_redis_keeps_its_figures_to_itself_results_are_not_limited() -> None:
    store: Any = connections().results
    store.execute_command("ACL SETUSER", "default", "-info")
    try:
        assert redis_memory.room_left(fresh=True) is None
    finally:
        store.execute_command("ACL SETUSER", "default", "+info")


def test_a_full_redis_still_tells_how_full_it_is() -> None:
    with refusing("OOM"):
        left = redis_memory.room_left(fresh=True)
    assert left is not None
    assert left < 0
