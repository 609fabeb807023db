"""The table of differences between texts that need not count."""

from typing import get_args

import pytest

from worker_tasks.joins.spec.folds import FOLDS, Fold


def test_the_literal_type_lists_every_row() -> None:
    assert tuple(FOLDS) == get_args(Fold)


@pytest.mark.parametrize(("fold", "folded"), [("case", "  straSSe 1"), ("blanks", "Straße 1"), ("both", "strasse 1")])
def test_a_folded_text_lacks_the_differences_that_do_not_count(fold: str, folded: str) -> None:
    assert FOLDS[fold].apply("  Straße 1") == (folded.lower() if FOLDS[fold].case else folded)
