"""Task documents, joins and values as text."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import states

from webapp.presenters import join_text, outcome_text, task_text
from webapp.presenters import value_text as plain
from worker_tasks.infra.connections import Document
from worker_tasks.records import ledger
from worker_tasks.records.live import Progress
from worker_tasks.results.formats import FORMATS

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def task(status: str, result: str = "null", name: str = "worker_tasks.tasks.join_users_orders") -> Document:
    return ledger.new_document("some-id", name, ["u1"]) | {"status": status, "result": result}


@pytest.mark.parametrize("status", sorted(ledger.FINAL_STATES | ledger.UNFINISHED_STATES))
def test_every_state_has_a_label_and_a_sentence(status: str) -> None:
    words = task_text.STATE_TEXTS[status]
    assert words.label
    assert words.sentence.endswith(".")


def test_an_unknown_state_is_shown_under_its_own_name() -> None:
    assert task_text.describe_state("ODD") == task_text.StateText("ODD", "Odd", "")


@pytest.mark.parametrize(
    ("status", "result", "line"),
    [
        (states.PENDING, "null", "Waiting for a worker to take it."),
        (states.SUCCESS, '{"redis_key": "k", "count": 0}', "Nothing was found: 0 rows."),
        (states.SUCCESS, '{"redis_key": "k", "count": 1}', "1 row joined."),
        (states.SUCCESS, '{"redis_key": "k", "count": 1234567}', "1,234,567 rows joined."),
        (states.SUCCESS, '"Processed: x"', "It came to its end."),
        (states.FAILURE, '{"exc_type": "ValueError", "exc_message": ["no good"]}', "no good"),
        (states.FAILURE, '{"exc_type": "ValueError", "exc_message": "no good"}', "no good"),
        (states.FAILURE, '{"exc_type": "InvalidInput", "exc_message": [{"a": "b", "c": "d"}]}', "a: b; c: d"),
        (states.FAILURE, '{"exc_type": "KeyError", "exc_message": []}', "KeyError"),
    ],
)
def test_the_status_line_fits_the_state_and_the_outcome(status: str, result: str, line: str) -> None:
    assert task_text.describe_status(task(status, result)) == line


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("worker_tasks.tasks.join_users_orders", ["u1"], "Orders of user u1"),
        ("worker_tasks.tasks.long_running_task", ["x"], "Practice task: x"),
        ("other.task", [], "other.task"),
        (None, [], "A task of unknown name"),
    ],
)
def test_a_task_has_a_title(name: str | None, args: list[Any], words: str) -> None:
    assert task_text.describe_task(ledger.new_document("some-id", name, args)) == words


def test_a_title_includes_keyword_arguments() -> None:
    by_name = ledger.new_document("some-id", "worker_tasks.tasks.join_users_orders", kwargs={"user_id": "u9"})
    assert task_text.describe_task(by_name) == "Orders of user u9"


@pytest.mark.parametrize(("quiet", "wait"), [(0, 1), (29, 1), (30, 2), (119, 2), (120, 5), (600, 15), (86_400, 15)])
def test_the_pause_between_polls_grows_with_the_time_since_the_last_event(quiet: int, wait: int) -> None:
    waiting = task(states.PENDING) | {"timeline": [{"at": NOW - timedelta(seconds=quiet), "status": "PENDING"}]}
    assert task_text.poll_seconds(waiting, NOW) == wait


@pytest.mark.parametrize(
    ("progress", "shown"), [((0, 12), 0), ((1, 12), 8), ((12, 12), 100), ((13, 12), 100), ((0, 0), 0)]
)
def test_progress_is_a_percentage(progress: tuple[int, int], shown: int) -> None:
    assert task_text.percent(Progress(*progress, unit="rows")) == shown


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(milliseconds=42), "42 ms"),
        (timedelta(seconds=3.24), "3.2 s"),
        (timedelta(seconds=65), "1 minute and 5 seconds"),
        (timedelta(seconds=300), "5 minutes"),
    ],
)
def test_a_duration_has_its_unit(span: timedelta, words: str) -> None:
    assert plain.format_duration(span) == words


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(), "now"),
        (timedelta(minutes=-2, seconds=-1), "2 minutes ago"),
        (timedelta(minutes=5, seconds=1), "in 5 minutes"),
    ],
)
def test_an_instant_is_relative_to_now(span: timedelta, words: str) -> None:
    assert plain.format_ago(datetime.now(UTC) + span) == words


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({"$date": "2024-06-01T08:30:00Z"}, "2024-06-01 08:30:00 UTC"),
        ({"$numberDecimal": "12.30"}, "12.30"),
        ({"$oid": "0123456789abcdef01234567"}, "0123456789abcdef01234567"),
        ({"$date": {"$numberLong": "-1"}}, "1969-12-31 23:59:59.999 UTC"),
        ({"$date": "not a date"}, {"$date": "not a date"}),
        ({"$oid": "12"}, {"$oid": "12"}),
        ({"$uuid": "12345678-1234-5678-1234-567812345678"}, "12345678-1234-5678-1234-567812345678"),
        ({"$unknown": 1}, {"$unknown": 1}),
        ({"a": 1, "$date": "x"}, {"a": 1, "$date": "x"}),
        ([1], [1]),
        (None, None),
    ],
)
def test_extended_json_is_shown_as_its_value(stored: Any, read: Any) -> None:
    assert plain.bson_value(stored) == read


def test_the_timeline_shows_the_time_since_the_first_event() -> None:
    events = [
        {"at": NOW, "status": states.PENDING, "note": None},
        {"at": NOW + timedelta(seconds=2), "status": states.STARTED, "note": "celery@host"},
    ]
    first, second = task_text.describe_timeline(task(states.STARTED) | {"timeline": events})
    assert (first["label"], first["when"]) == ("Queued", plain.format_instant(NOW))
    assert (second["label"], second["when"], second["note"]) == ("Running", "after 2.0 s", "celery@host")


@pytest.mark.parametrize(
    ("before", "usual", "slots", "words"),
    [
        (0, 3.0, 2, "It is the next one."),
        (1, None, 2, "1 task is before it."),
        (6, 4.0, 2, "6 tasks are before it: it should begin in about 12.0 s."),
        (6, 4.0, 0, "No worker is there just now; it begins as soon as one is."),
    ],
)
def test_a_waiting_task_shows_its_position_in_the_queue(
    before: int, usual: float | None, slots: int, words: str
) -> None:
    assert task_text.describe_waiting(before, usual, slots) == words


def test_the_pace_has_only_the_known_parts() -> None:
    assert task_text.describe_pace(Progress(1, None, "steps")) == ""
    known = Progress(1_000, 5_000, "rows", size=2**20, rate=500.4)
    assert task_text.describe_pace(known) == ", 500 rows a second, 1.0 MiB, 8.0 s left"


JOIN = {
    "database": "shop",
    "from": "users",
    "match": {"city": "Lima"},
    "joins": [
        {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId", "cast": "string"}], "limit": 3},
        {"from": "cities", "kind": "anti", "on": [{"local": "city", "foreign": "name"}]},
    ],
    "sort": [["name", -1]],
}


def test_a_join_is_described_line_by_line() -> None:
    assert join_text.describe_join_lines(JOIN) == [
        ("From", "shop.users"),
        ("Only where", '{"city": "Lima"}'),
        ("Order", "name, highest first"),
        ("Join", "rows with their orders, where _id as string = userId"),
        ("Into", "orders: all matches in a list"),
        ("At most", "3"),
        ("Join", "rows without cities, where city = name"),
    ]


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["left"], "Users with their a"),
        (["left", "left", "left"], "Users with their a, b and c"),
        (["semi", "left"], "Users that have a with their b"),
        (["outer"], "All of users and a"),
    ],
)
def test_a_join_is_described_in_a_phrase(kinds: list[str], words: str) -> None:
    joins = [{"from": name, "kind": kind} for name, kind in zip("abc", kinds, strict=False)]
    assert join_text.describe_join({"from": "users", "joins": joins}) == words


def done(**more: Any) -> Document:
    fields = {"result": '{"redis_key": "k", "count": 200}', "started_at": NOW, "date_done": NOW + timedelta(seconds=2)}
    return task(states.SUCCESS) | {"join": JOIN, "attempt": 1, "worker": "celery@a", **fields, **more}


def test_actual_figures_stand_beside_expected_ones() -> None:
    checks = {"expected": {"rows": 190, "bytes": 2048, "seconds": 1.5, "rates": [0.9, 0.5]}}
    found = done(checks=checks, result_bytes=4096, unmatched={"orders": 20})
    lines = [(line["label"], line["actual"], line["expected"]) for line in outcome_text.actual_vs_expected(found)]
    assert lines == [
        ("Rows", "200", "about 190"),
        ("Size", "4.0 KiB", "about 2.0 KiB"),
        ("Time", "2.0 s", "about 1.5 s"),
        ("Match in orders", "90 %; 20 rows found none", "about 90 %"),
        ("Worker", "celery@a", ""),
        ("Computed", "by this task", ""),
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"plan": {"parts": 4, "steps": []}}, "by this task, in 4 parts"),
        ({"shares": "0123456789", "attempt": 0}, "by the run of task 01234567, which asked the same"),
    ],
)
def test_the_figures_name_the_task_that_computed_the_result(more: Document, words: str) -> None:
    lines = {line["label"]: line["actual"] for line in outcome_text.actual_vs_expected(done(**more))}
    assert lines["Computed"] == words


def test_a_cancelled_task_gives_a_receipt() -> None:
    asked = {"cancel_requested_at": NOW, "date_done": NOW + timedelta(milliseconds=120), "join": JOIN}
    cancelled = task(states.REVOKED) | asked | {"attempt": 1, "left_in_mongodb": 0, "partial": {"count": 1200}}
    assert outcome_text.cancel_receipt(cancelled) == [
        ("Asked", plain.format_instant(NOW)),
        ("Stopped", "after 120 ms"),
        ("Left running in MongoDB", "nothing, as MongoDB says"),
        ("Kept", "the 1,200 rows that were joined, as a partial result"),
    ]
    waiting = task(states.REVOKED) | asked | {"attempt": 0}
    assert ("Left running in MongoDB", "nothing: it had not begun") in outcome_text.cancel_receipt(waiting)


def test_the_title_of_the_tab_begins_with_the_state() -> None:
    running = task(states.STARTED) | {"name": "worker_tasks.tasks.run_join", "join": JOIN}
    title = task_text.page_title(running, Progress(1, 4, "rows"))
    assert title == "25 % · Users without cities with their orders · Dovetail"
    assert task_text.page_title(running, None).startswith("Running · ")
    assert task_text.icon_of(running) == "icon-running.svg"


@pytest.mark.parametrize(("number", "words"), [(7, "7"), (99, "99"), (336_776, "340,000"), (1_250, "1,200")])
def test_an_estimate_has_two_significant_digits(number: int, words: str) -> None:
    assert plain.format_estimate(number) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 Bytes"), (999, "999 Bytes"), (240_128, "234 KiB"), (1_300_000, "1.2 MiB")]
)
def test_an_estimated_size_has_no_false_precision(number: int, words: str) -> None:
    assert plain.format_estimated_size(number) == words


def test_every_file_format_has_a_name_and_a_purpose() -> None:
    assert sorted(form.label for form in FORMATS.values()) == sorted(plain.FORMAT_TEXTS)


@pytest.mark.parametrize(
    ("names", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_a_list_of_names_ends_with_and(names: list[str], words: str) -> None:
    assert plain.format_list(names) == words
