"""Findings and their texts, tested with made-up statistics."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.worker_tasks.joins.preflight.check_support import join_with
from worker_tasks.infra.connections import Document
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight import checks, findings
from worker_tasks.joins.preflight.estimates import Estimate, repeated
from worker_tasks.joins.preflight.findings import Cure, Finding, Level
from worker_tasks.joins.preflight.join_stats import JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import CollectionSample, Field
from worker_tasks.joins.spec.spec import Join, KeyPair


def a_join(**more: Any) -> Join:
    return Join.model_validate_json(json.dumps(join_with("other", "key", "key", **more)))


def a_sample(**more: Any) -> CollectionSample:
    fields = (Field("_id", 1, {"int": 1}), Field("key", 1, {"string": 1}))
    sample = CollectionSample(count=1000, sampled=200, size=100, indexed=("_id",), unique=(("_id",),), fields=fields)
    return replace(sample, **more)


def stats_of(join: Join, other: CollectionSample, **more: Any) -> JoinStats:
    keys = [KeyStats(pair, Counter(string=100), 0.0, frozenset({"key"}), other) for pair in join.on]
    matches = {"matched": 50, "mean_matches": 1.0, "max_matches": 2, "max_key": ["Ada"]}
    return replace(JoinStats(0, join, 100, keys, other), **{**matches, **more})


def findings_of(join: Join, other: CollectionSample | None = None, **more: Any) -> list[tuple[Level, str]]:
    found = findings.join_findings(stats_of(join, other or a_sample(), **more), "left")
    return [(finding.level, finding.text) for finding in found]


MANY_MATCHES: dict[str, Any] = {"max_matches": 2_000, "mean_matches": 20.0}


def test_more_matches_than_fit_into_one_document_are_reported_with_their_key() -> None:
    found = findings_of(a_join(), a_sample(size=10_000.0), **MANY_MATCHES)
    (text,) = [text for level, text in found if level is Level.STOP]
    assert text.startswith("Ada has 2,000 matches, about 19 MB: more than the 16 MB of one document.")


@pytest.mark.parametrize(
    "change",
    [{"shape": "rows"}, {"shape": "first"}, {"shape": "count"}, {"limit": 1000}, {"fields": ["name"]}],
    ids=str,
)
def test_many_matches_are_no_problem_if_they_do_not_go_into_one_document(change: Document) -> None:
    assert Level.STOP not in [
        level for level, _ in findings_of(a_join(**change), a_sample(size=10_000.0), **MANY_MATCHES)
    ]


def test_many_small_matches_are_no_problem() -> None:
    assert Level.STOP not in [level for level, _ in findings_of(a_join(), **MANY_MATCHES)]


def test_taking_the_first_of_several_unsorted_matches_is_a_warning() -> None:
    text = "Each match is one of 2.0 on average, and no order says which is the first."
    assert (Level.WARNING, text) in findings_of(a_join(shape="first"))
    assert (Level.WARNING, text) not in findings_of(a_join(shape="first", sort=[["at", -1]]))


def test_repeated_rows_are_reported_with_the_factor() -> None:
    found = findings.repetition_finding(2.16, "orders", 1)
    assert found == Finding(
        Level.WARNING,
        "Each document of orders appears 2.2 times on average; a sum of its own fields counts them that often.",
        1,
    )
    assert findings.repetition_finding(1.04, "orders", None) is None


@pytest.mark.parametrize(
    ("kind", "expansion", "factor", "number"),
    [("inner", 1.0, 2.0, 0), ("left", 1.0, 1.5, 0), ("inner", 3.0, 6.0, None), ("semi", 3.0, 3.0, None)],
)
def test_the_factor_counts_the_documents_that_appear(
    kind: str, expansion: float, factor: float, number: int | None
) -> None:
    join = a_join(kind=kind) if kind == "semi" else a_join(kind=kind, shape="rows")
    assert repeated([stats_of(join, a_sample(), mean_kept=1.0)], expansion) == (factor, number)


def test_matches_in_a_sample_of_the_other_side_are_the_least() -> None:
    text = "At least 20 % of left find a match in other: only a sample of other was compared."
    assert findings_of(a_join(), matched=None, mean_matches=None, matched_in_sample=20) == [(Level.NOTE, text)]


@pytest.mark.parametrize(
    ("is_whole", "rows", "text"),
    [
        (True, 1, "1 row has NaN as key in left.key; NaN matches nothing."),
        (True, 3, "3 rows have NaN as key in left.key; NaN matches nothing."),
        (False, 3, "3 of 100 sampled rows have NaN as key in left.key; NaN matches nothing."),
    ],
)
def test_rows_with_nan_as_key_are_counted(is_whole: bool, rows: int, text: str) -> None:
    other = a_sample()
    keys = [KeyStats(KeyPair(local="key", foreign="key"), Counter(string=9), 0.0, frozenset({"key"}), other, rows)]
    assert (Level.WARNING, text) in findings_of(a_join(), other, keys=keys, is_whole=is_whole)


def test_mean_and_maximum_matches_are_reported() -> None:
    text = "26.0 documents of other match each on average, 1,234 at most."
    assert (Level.NOTE, text) in findings_of(a_join(), mean_matches=13.0, max_matches=1234)


def test_a_list_of_at_most_one_match_is_reported_with_a_better_shape() -> None:
    stats = stats_of(a_join(), a_sample(unique=(("key",),)), mean_matches=0.5, max_matches=1)
    (found,) = [finding for finding in findings.join_findings(stats, "left") if finding.cure]
    assert (found.level, found.cure) == (Level.NOTE, Cure(0, 0, "shape", "first"))


def test_unknown_matches_are_reported() -> None:
    text = "How many of left match other could not be found out in time."
    assert findings_of(a_join(), matched=None, mean_matches=None) == [(Level.NOTE, text)]


def test_few_matches_are_a_warning_and_many_are_good() -> None:
    few, many = (findings_of(a_join(kind="semi"), matched=matched) for matched in (4, 60))
    assert few == [(Level.WARNING, "About 4 % of left find a match in other by key = key.")]
    assert many == [(Level.GOOD, "About 60 % of left find a match in other by key = key.")]


def test_no_match_is_only_a_note_for_an_anti_join() -> None:
    assert [level for level, _ in findings_of(a_join(kind="anti"), matched=0, mean_matches=0.0, max_matches=0)] == [
        Level.NOTE
    ]


def test_keys_that_can_never_match_are_reported_only_once() -> None:
    join, other = a_join(), a_sample()
    keys = [KeyStats(KeyPair(local="key", foreign="key"), Counter(objectId=100), 0.0, frozenset({"key"}), other)]
    found = findings_of(join, other, keys=keys, matched=0, mean_matches=0.0, max_matches=0)
    assert found == [(Level.STOP, "left.key holds ObjectIds, other.key text: they never match.")]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.004, "under 1 %"), (0.05, "5 %"), (0.83, "83 %"), (0.995, "over 99 %"), (1, "100 %")],
)
def test_shares_are_never_rounded_to_0_or_100_percent(share: float, text: str) -> None:
    assert findings.format_percent(share) == text


def test_a_result_beyond_the_limits_is_reported() -> None:
    limits = settings()
    rows, size = limits.result_max_rows + 1, (limits.result_max_mib + 1) * 2**20
    found = list(checks._limit_findings(Estimate(rows, size, 1.0, [])))
    assert [finding.level for finding in found] == [Level.WARNING, Level.WARNING]
    assert found[0].text.startswith(f"About {rows:,} rows are more than the {limits.result_max_rows:,}")
    assert list(checks._limit_findings(Estimate(rows - 1, size - 2**20, 1.0, []))) == []
    assert list(checks._limit_findings(Estimate(None, None, None, []))) == []
