"""Findings in words, from facts that a test makes up."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.worker_tasks.joins.preflight.check_support import joined
from worker_tasks.infra.connections import Document
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.strategy import JoinMethod, Step
from worker_tasks.joins.preflight import checks, findings
from worker_tasks.joins.preflight.checks import Estimate
from worker_tasks.joins.preflight.findings import Cure, Level
from worker_tasks.joins.preflight.probing import JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import CollectionSample, Field
from worker_tasks.joins.spec.spec import Join, KeyPair


@pytest.mark.parametrize(
    ("step", "served_by", "level", "words", "has_command"),
    [
        (Step(JoinMethod.INDEX, 0), "other(key)", Level.GOOD, "The index other(key) finds the matches.", False),
        (Step(JoinMethod.HASH, 0), None, Level.GOOD, "other is small enough to be held in memory.", False),
        (Step(JoinMethod.COMPARE, 0.4), None, Level.NOTE, "every pair is compared, about 0 s.", True),
        (Step(JoinMethod.COMPARE, 120), None, Level.WARNING, "every pair is compared, about 120 s.", True),
        (Step(JoinMethod.ONE_PASS, 2.5), None, Level.NOTE, "in one pass, about 2.5 s before the first row.", True),
        (Step(JoinMethod.ONE_PASS, 2.5), "other(key)", Level.GOOD, "Both sides are read in one pass", False),
        (Step(JoinMethod.SWAPPED, 1), None, Level.GOOD, "It is joined from the other side", False),
    ],
    ids=["index", "memory", "few compared", "many compared", "one pass", "one pass for all that", "swapped"],
)
def test_each_way_of_running_it_is_put_in_words(
    step: Step, served_by: str | None, level: Level, words: str, has_command: bool
) -> None:
    found = findings.method_finding(a_join(), 0, step, served_by, can_be_indexed=True)
    assert (found.level, found.command is not None) == (level, has_command)
    assert words in found.text


def a_join(**more: Any) -> Join:
    return Join.model_validate_json(json.dumps(joined("other", "key", "key", **more)))


def a_look(**more: Any) -> CollectionSample:
    fields = (Field("_id", 1, {"int": 1}), Field("key", 1, {"string": 1}))
    look = CollectionSample(count=1000, sampled=200, size=100, indexed=("_id",), unique=(("_id",),), fields=fields)
    return replace(look, **more)


def facts_of(join: Join, other: CollectionSample, **more: Any) -> JoinStats:
    keys = [KeyStats(pair, Counter(string=100), 0.0, frozenset({"key"}), other) for pair in join.on]
    found = {"matched": 50, "matches": 1.0, "most": 2, "most_key": ["Ada"]}
    return replace(JoinStats(0, join, 100, keys, other), **{**found, **more})


def said(join: Join, other: CollectionSample | None = None, **more: Any) -> list[tuple[Level, str]]:
    found = findings.join_findings(facts_of(join, other or a_look(), **more), "left")
    return [(finding.level, finding.text) for finding in found]


BIG: dict[str, Any] = {"most": 2_000, "matches": 20.0}


def test_more_matches_than_one_document_holds_are_found_with_the_key_that_has_them() -> None:
    found = said(a_join(), a_look(size=10_000.0), **BIG)
    (text,) = [text for level, text in found if level is Level.STOP]
    assert text.startswith("Ada has 2,000 matches, about 19 MB: more than the 16 MB of one document.")


@pytest.mark.parametrize(
    "change",
    [{"shape": "rows"}, {"shape": "first"}, {"shape": "count"}, {"limit": 1000}, {"fields": ["name"]}],
    ids=str,
)
def test_as_many_matches_are_no_matter_where_they_do_not_go_into_one_document(change: Document) -> None:
    assert Level.STOP not in [level for level, _ in said(a_join(**change), a_look(size=10_000.0), **BIG)]


def test_as_many_small_matches_are_no_matter() -> None:
    assert Level.STOP not in [level for level, _ in said(a_join(), **BIG)]


def test_the_first_match_of_several_without_an_order_is_questioned() -> None:
    words = "Each match is one of 2.0 on average, and no order says which is the first."
    assert (Level.WARNING, words) in said(a_join(shape="first"))
    assert (Level.WARNING, words) not in said(a_join(shape="first", sort=[["at", -1]]))


def test_rows_that_are_repeated_are_told() -> None:
    words = "Each of left that matches is repeated 2.0 times on average: their values count as often."
    assert (Level.NOTE, words) in said(a_join(shape="rows"))


def test_how_many_match_each_is_told_with_the_most() -> None:
    words = "26.0 documents of other match each on average, 1,234 at most."
    assert (Level.NOTE, words) in said(a_join(), matches=13.0, most=1234)


def test_a_list_of_one_at_most_is_told_with_the_handier_shape() -> None:
    facts = facts_of(a_join(), a_look(unique=(("key",),)), matches=0.5, most=1)
    (found,) = [finding for finding in findings.join_findings(facts, "left") if finding.cure]
    assert (found.level, found.cure) == (Level.NOTE, Cure(0, 0, "shape", "first"))


def test_what_could_not_be_found_out_in_time_is_said() -> None:
    words = "How many of left match other could not be found out in time."
    assert said(a_join(), matched=None, matches=None) == [(Level.NOTE, words)]


def test_few_matches_are_a_warning_and_many_are_good() -> None:
    few, many = (said(a_join(kind="semi"), matched=matched) for matched in (4, 60))
    assert few == [(Level.WARNING, "About 4 % of left find a match in other by key = key.")]
    assert many == [(Level.GOOD, "About 60 % of left find a match in other by key = key.")]


def test_no_match_is_what_an_anti_join_may_ask_for() -> None:
    assert [level for level, _ in said(a_join(kind="anti"), matched=0, matches=0.0, most=0)] == [Level.NOTE]


def test_where_keys_can_never_match_it_is_not_said_twice_that_none_does() -> None:
    join, other = a_join(), a_look()
    keys = [KeyStats(KeyPair(local="key", foreign="key"), Counter(objectId=100), 0.0, frozenset({"key"}), other)]
    found = said(join, other, keys=keys, matched=0, matches=0.0, most=0)
    assert found == [(Level.STOP, "left.key holds ObjectIds, other.key text: they never match.")]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.004, "under 1 %"), (0.05, "5 %"), (0.83, "83 %"), (0.995, "over 99 %"), (1, "100 %")],
)
def test_shares_are_rounded_but_never_to_none_or_all(share: float, words: str) -> None:
    assert findings.format_percent(share) == words


def test_a_result_that_is_bigger_than_allowed_is_found() -> None:
    limits = settings()
    rows, size = limits.result_max_rows + 1, (limits.result_max_mib + 1) * 2**20
    found = list(checks._of_limits(Estimate(rows, size, 1.0, [])))
    assert [finding.level for finding in found] == [Level.WARNING, Level.WARNING]
    assert found[0].text.startswith(f"About {rows:,} rows are more than the {limits.result_max_rows:,}")
    assert list(checks._of_limits(Estimate(rows - 1, size - 2**20, 1.0, []))) == []
    assert list(checks._of_limits(Estimate(None, None, None, []))) == []
