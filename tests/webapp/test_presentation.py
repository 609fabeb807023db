"""From task document to words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import states

from webapp import presentation
from worker_tasks import ledger
from worker_tasks.connections import Document
from worker_tasks.live import Progress

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def task(status: str, result: str = "null", name: str = "worker_tasks.tasks.join_users_orders") -> Document:
    return ledger.new_document("some-id", name, ["u1"]) | {"status": status, "result": result}


@pytest.mark.parametrize("status", sorted(ledger.FINAL_STATES | ledger.UNFINISHED_STATES))
def test_every_state_has_words(status: str) -> None:
    words = presentation.STATE_WORDS[status]
    assert words.label
    assert words.sentence.endswith(".")


def test_a_state_nobody_knows_is_shown_as_it_is() -> None:
    assert presentation.state_words("ODD") == presentation.StateWords("ODD", "Odd", "")


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
def test_a_state_is_said_in_one_line(status: str, result: str, line: str) -> None:
    assert presentation.status_line(task(status, result)) == line


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("worker_tasks.tasks.join_users_orders", ["u1"], "Orders of user u1"),
        ("worker_tasks.tasks.long_running_task", ["x"], "Practice task: x"),
        ("other.task", [], "other.task"),
        (None, [], "A task of unknown name"),
    ],
)
def test_what_was_asked_is_said_in_a_few_words(name: str | None, args: list[Any], words: str) -> None:
    assert presentation.sentence(ledger.new_document("some-id", name, args)) == words


def test_arguments_given_by_name_are_said_too() -> None:
    by_name = ledger.new_document("some-id", "worker_tasks.tasks.join_users_orders", kwargs={"user_id": "u9"})
    assert presentation.sentence(by_name) == "Orders of user u9"


@pytest.mark.parametrize(("quiet", "wait"), [(0, 1), (29, 1), (30, 2), (119, 2), (120, 5), (600, 15), (86_400, 15)])
def test_the_longer_nothing_happened_the_longer_the_page_waits(quiet: int, wait: int) -> None:
    waiting = task(states.PENDING) | {"timeline": [{"at": NOW - timedelta(seconds=quiet), "status": "PENDING"}]}
    assert presentation.poll_seconds(waiting, NOW) == wait


@pytest.mark.parametrize(
    ("progress", "shown"), [((0, 12), 0), ((1, 12), 8), ((12, 12), 100), ((13, 12), 100), ((0, 0), 0)]
)
def test_progress_is_a_percentage(progress: tuple[int, int], shown: int) -> None:
    assert presentation.percent(Progress(*progress, unit="rows")) == shown


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(milliseconds=42), "42 ms"),
        (timedelta(seconds=3.24), "3.2 s"),
        (timedelta(seconds=65), "1 minute and 5 seconds"),
        (timedelta(seconds=300), "5 minutes"),
    ],
)
def test_a_span_of_time_has_its_unit(span: timedelta, words: str) -> None:
    assert presentation.duration(span) == words


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(), "now"),
        (timedelta(minutes=-2, seconds=-1), "2 minutes ago"),
        (timedelta(minutes=5, seconds=1), "in 5 minutes"),
    ],
)
def test_an_instant_is_said_from_here(span: timedelta, words: str) -> None:
    assert presentation.ago(datetime.now(UTC) + span) == words


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({"$date": "2024-06-01T08:30:00Z"}, "2024-06-01 08:30:00 UTC"),
        ({"$numberDecimal": "12.30"}, "12.30"),
        ({"$oid": "0123456789abcdef01234567"}, "0123456789abcdef01234567"),
        ({"$unknown": 1}, {"$unknown": 1}),
        ({"a": 1, "$date": "x"}, {"a": 1, "$date": "x"}),
        ([1], [1]),
        (None, None),
    ],
)
def test_extended_json_is_read_as_its_value(stored: Any, read: Any) -> None:
    assert presentation.bson_value(stored) == read


def test_the_timeline_says_how_long_each_step_took() -> None:
    events = [
        {"at": NOW, "status": states.PENDING, "note": None},
        {"at": NOW + timedelta(seconds=2), "status": states.STARTED, "note": "celery@host"},
    ]
    first, second = presentation.timeline(task(states.STARTED) | {"timeline": events})
    assert (first["label"], first["after"]) == ("Queued", None)
    assert (second["label"], second["after"], second["note"]) == ("Running", timedelta(seconds=2), "celery@host")
