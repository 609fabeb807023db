"""The size of the batches requested from MongoDB."""

import pytest

from worker_tasks.joins.reading.batches import BATCH_BYTES, BATCH_SECONDS, next_batch_size


@pytest.mark.parametrize(
    ("seconds", "size", "documents"),
    [
        (BATCH_SECONDS / 10, 1000, 800),
        (BATCH_SECONDS, 1000, 200),
        (BATCH_SECONDS * 3, 1000, 100),
        (BATCH_SECONDS / 10, BATCH_BYTES // 2, 200),
        (BATCH_SECONDS / 10, BATCH_BYTES + 1, 100),
    ],
    ids=["fast", "on target", "slow", "large", "too large"],
)
def test_batches_grow_while_they_are_fast_and_small(seconds: float, size: int, documents: int) -> None:
    assert next_batch_size(200, seconds, size) == documents


def test_a_batch_is_never_empty() -> None:
    assert next_batch_size(1, BATCH_SECONDS * 10, BATCH_BYTES * 4) == 1
