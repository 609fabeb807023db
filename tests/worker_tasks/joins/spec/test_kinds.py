"""The tables of kinds and shapes are complete, and their flags are consistent."""

from typing import get_args

import pytest

from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind, Kind, MatchShape, Shape


def test_the_literal_types_list_every_row() -> None:
    assert tuple(KINDS) == get_args(Kind)
    assert tuple(SHAPES) == get_args(Shape)


def test_the_defaults_keep_every_row_and_every_match() -> None:
    assert KINDS[DEFAULT_KIND].keeps_exactly_left
    assert KINDS[DEFAULT_KIND].embeds
    assert SHAPES[DEFAULT_SHAPE].needs_all


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_flags_of_a_kind_are_consistent(kind: JoinKind) -> None:
    assert kind.keeps_left or not kind.excludes_matches, "no row would be left"
    assert kind.embeds or not kind.keeps_other, "rows of the other side need the field"
    assert not (kind.embeds and kind.excludes_matches), "the field would always be empty"
    assert (kind.one_sided is not None) == kind.keeps_other
    if kind.one_sided is not None:
        one_sided = KINDS[kind.one_sided]
        assert (one_sided.keeps_left, one_sided.keeps_other) == (kind.keeps_left, False)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_flags_of_a_shape_are_consistent(shape: MatchShape) -> None:
    assert shape.holds_documents or not (shape.holds_list or shape.repeats_rows or shape.takes_one)
    assert shape.holds_list + shape.repeats_rows + shape.takes_one <= 1
