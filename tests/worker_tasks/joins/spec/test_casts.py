"""Casts are suggested between the right types."""

from typing import get_args

import pytest

from worker_tasks.joins.spec.bson_types import BSON_TYPES
from worker_tasks.joins.spec.casts import CASTS, UUID_REPRESENTATIONS, Cast, casts_to


def test_the_literal_type_lists_every_row() -> None:
    assert tuple(CASTS) == get_args(Cast)


@pytest.mark.parametrize("cast", CASTS)
def test_casts_are_suggested_between_distinct_known_types(cast: str) -> None:
    conversion = CASTS[cast]
    assert cast in BSON_TYPES.keys() | UUID_REPRESENTATIONS.keys()
    assert conversion.suggested_from <= BSON_TYPES.keys()
    assert conversion.suggested_to <= BSON_TYPES.keys()
    assert not conversion.suggested_from & conversion.suggested_to


def test_no_two_casts_other_than_to_uuids_are_suggested_for_the_same_types() -> None:
    for local in BSON_TYPES:
        for foreign in BSON_TYPES:
            casts = casts_to(local, foreign)
            assert len(casts) <= 1 or set(casts) == UUID_REPRESENTATIONS.keys(), (local, foreign)


@pytest.mark.parametrize(
    ("local", "foreign", "cast"),
    [
        ("string", "objectId", "objectId"),
        ("objectId", "string", "string"),
        ("int", "string", "string"),
        ("string", "int", "long"),
        ("string", "double", "double"),
        ("string", "decimal", "double"),
        ("string", "date", "date"),
        ("string", "binData", "uuid"),
        ("binData", "string", "uuid"),
        ("date", "objectId", None),
        ("object", "string", None),
        ("int", "objectId", None),
    ],
)
def test_the_suggested_cast_depends_on_both_types(local: str, foreign: str, cast: Cast | None) -> None:
    assert next(iter(casts_to(local, foreign)), None) == cast
