"""Results leave some of Redis to the queue; whether there is room is asked, never guessed."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import refusing
from worker_tasks import room
from worker_tasks.connections import connections
from worker_tasks.errors import StorageFull

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
    assert room.room_left(fresh=True) is None
    room.require_room(10**12)


@pytest.mark.parametrize(("mib", "kept"), [(4, 1), (60, 15), (100, 16), (320, 16), (1000, 50)])
def test_results_leave_the_queue_16_mib_or_a_twentieth_but_never_more_than_a_quarter(mib: int, kept: int) -> None:
    assert room.reserve(mib * MIB) == kept * MIB


def test_results_stop_before_the_reserve_and_the_queue_still_takes_messages(limit: None) -> None:
    free(100 * MIB)
    left = room.room_left(fresh=True)
    memory: Any = connections().results.info("memory")
    assert left is not None
    # Other memory of Redis comes and goes between the two looks.
    assert abs(memory["maxmemory"] - memory["used_memory"] - room.reserve(memory["maxmemory"]) - left) < 5 * MIB
    room.require_room(left // 2)
    with pytest.raises(StorageFull, match="no room for the result"):
        room.require_room(left * 2)
    room.require_queue()


def test_that_there_is_no_room_is_forgotten_as_soon_as_there_is_some(limit: None) -> None:
    free(0)
    room.room_left(fresh=True)
    with pytest.raises(StorageFull):
        room.require_room()
    free(100 * MIB)
    room.require_room()


def test_a_full_queue_has_no_room_for_another_task(limit: None) -> None:
    free(room.QUEUE_ROOM // 2)
    with pytest.raises(StorageFull, match="no room for another task"):
        room.require_queue()


def test_the_look_at_the_queue_changes_nothing() -> None:
    before = connections().queue.dbsize()
    room.require_queue()
    assert connections().queue.dbsize() == before


def test_where_redis_keeps_its_figures_to_itself_results_are_not_limited() -> None:
    store: Any = connections().results
    store.execute_command("ACL SETUSER", "default", "-info")
    try:
        assert room.room_left(fresh=True) is None
    finally:
        store.execute_command("ACL SETUSER", "default", "+info")


def test_a_full_redis_still_tells_how_full_it_is() -> None:
    with refusing("OOM"):
        left = room.room_left(fresh=True)
    assert left is not None
    assert left < 0
