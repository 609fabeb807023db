"""The value made from a canonical key has that key again."""

from typing import Any

import bson
import pytest
from bson import Code, Decimal128, Int64, Regex
from hypothesis import given, settings

from tests.worker_tasks.joins.matching.bson_strategies import CODEC, values
from worker_tasks.joins.matching.canonical_keys import SEPARATOR, canonical
from worker_tasks.joins.matching.raw_values import raw_value


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(values)
def test_a_value_made_from_a_key_has_the_key(value: Any) -> None:
    stored = bson.decode(bson.encode({"v": value}), CODEC)["v"]
    key = canonical(stored)
    if key is None:
        return
    try:
        raw = raw_value(key)
    except ValueError:
        assert "Regex" in repr(stored) or "Code" in repr(stored)
        return
    assert canonical(raw) == key
    assert canonical(bson.decode(bson.encode({"v": raw}), CODEC)["v"]) == key


def test_a_key_with_the_separator_is_unescaped() -> None:
    text = f"a{SEPARATOR}b\x1e1"
    key = canonical(text)
    assert key is not None
    assert raw_value(key) == text


@pytest.mark.parametrize("value", [Regex("a"), Code("a"), Code("a", {}), [Regex("a")], {"a": Code("b")}], ids=str)
def test_patterns_and_code_are_never_made(value: Any) -> None:
    key = canonical(value)
    assert key is not None
    with pytest.raises(ValueError, match="no value"):
        raw_value(key)


@pytest.mark.parametrize("value", [7, 7.0, Int64(7), Decimal128("7.0")])
def test_a_whole_number_is_shown_without_a_decimal_point(value: Any) -> None:
    key = canonical(value)
    assert key is not None
    assert str(raw_value(key)) == "7"
