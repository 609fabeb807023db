"""The soak's own count finds what is wrong: each test breaks one thing, and nothing but that is complained about."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.soak import checks, data
from tests.soak.checks import Defect
from tests.soak.data import Document, Known, OrdersOf
from tests.soak.faults import Fault, Happened
from tests.soak.ledger import Asked, Patch, Reply
from tests.soak.watch import at_once
from tests.worker_tasks.joins.reference import joined
from worker_tasks.joins.spec import spec

JOIN = Known("items", "key", "tags", "key", 100, 400)
KEY = "join_result:1"


def stored(rows: list[Document]) -> bytes:
    return ("[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]").encode()


RIGHT = stored(list(JOIN.rows()))
COUNT = len(list(JOIN.rows()))


@pytest.fixture
def asked() -> Asked:
    return Asked(1, "stream", {"soak": "7-1", "reason": "test"}, JOIN, status=202, task_id="a")


@pytest.fixture
def task() -> Document:
    return {
        "_id": "a",
        "status": "SUCCESS",
        "metadata": {"soak": "7-1", "reason": "test"},
        "result": json.dumps({"redis_key": KEY, "count": COUNT}),
        "partial": None,
        "timeline": [
            {"at": datetime(2020, 1, 1, tzinfo=UTC), "status": status, "note": note}
            for status, note in (("PENDING", None), ("STARTED", "w1@soak"), ("SUCCESS", None))
        ],
    }


def complaints(
    asked: Asked, tasks: list[Document], result: bytes | None = RIGHT, first_final: str = "SUCCESS"
) -> list[str]:
    found = checks.of_everything([asked], tasks, {KEY: result}.get, {"a": first_final})
    return [defect.what for defect in found]


def test_what_is_right_is_right(asked: Asked, task: Document) -> None:
    assert complaints(asked, [task]) == []


@pytest.mark.parametrize("kind", ["left", "inner", "semi", "anti"])
@pytest.mark.parametrize("shape", ["rows", "array", "count"])
@pytest.mark.parametrize("sides", [("items", "key", "tags", "key"), ("orders", "userId", "users", "_id")])
def test_the_count_means_what_a_join_means(kind: str, shape: str, sides: tuple[str, str, str, str]) -> None:
    known = Known(*sides, 100, 130, kind, shape)
    described = spec.parse_spec(known.spec() | {"match": {}}, {data.DATABASE})
    documents = {name: data.documents(name) for name in data.COLLECTIONS}
    documents |= {sides[0]: documents[sides[0]][100:130]}
    wanted = sorted(data.canonical(row) for row in joined(described, documents))
    assert sorted(data.canonical(row) for row in known.rows()) == wanted
    assert wanted or (kind == "anti")


def test_a_user_who_is_not_there_has_no_row() -> None:
    assert data.recount(b"[]", 0, OrdersOf("u999")) == []
    (row,) = OrdersOf("u7").rows()
    assert {order["userId"] for order in row["orders"]} == {"u7"}
    assert data.recount(stored([row]), 1, OrdersOf("u7")) == []
    assert data.recount(b"[]", 0, OrdersOf("u7")) != []


def swap_a_byte(text: bytes) -> bytes:
    place = text.index(b'"count": ') + len(b'"count": ')
    return text[:place] + b"9" + text[place + 1 :]


def lose_a_row(text: bytes) -> bytes:
    return stored(json.loads(text)[1:])


def double_a_row(text: bytes) -> bytes:
    rows = json.loads(text)
    return stored([*rows[1:], rows[-1]])


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda text: text[:500] + bytes(200) + text[700:], "200 NUL bytes"),
        (lambda text: text[: len(text) // 2], "no JSON"),
        (swap_a_byte, "1 missing, 1 too many"),
        (lose_a_row, "count says"),
        (double_a_row, "1 missing, 1 too many"),
        (lambda text: b"[]", "0 rows of"),
        (lambda text: b"{}", "no JSON array"),
    ],
)
def test_a_result_that_was_tampered_with_is_found(
    asked: Asked, task: Document, tamper: Callable[[bytes], bytes], said: str
) -> None:
    tampered = tamper(RIGHT)
    defects = checks.of_task(asked, task, lambda key: tampered)
    assert {defect.what for defect in defects} == {"result is wrong"}
    assert said in " ".join(defect.detail for defect in defects)


def test_a_count_that_says_something_else_and_a_result_that_is_gone(asked: Asked, task: Document) -> None:
    assert complaints(asked, [task], None) == ["result gone"]
    wrong = task | {"result": json.dumps({"redis_key": KEY, "count": COUNT + 1})}
    assert complaints(asked, [wrong]) == ["result is wrong"]


def test_of_what_was_stopped_some_rows_are_enough_and_none_may_be_wrong(asked: Asked, task: Document) -> None:
    asked.cancels = [202]
    some = list(JOIN.rows())[:50]
    revoked = task | {"status": "REVOKED", "result": "null", "partial": {"redis_key": KEY, "count": 50}}
    assert complaints(asked, [revoked], stored(some), "REVOKED") == []
    assert complaints(asked, [revoked], None, "REVOKED") == []
    assert complaints(asked, [revoked], stored([*some[1:], some[2]]), "REVOKED") == ["partial result is wrong"]


Change = Callable[[Asked, Document], Any]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda asked, task: task.update(status="STARTED"), "not in a final state"),
        (lambda asked, task: task["metadata"].pop("reason"), "metadata is not as asked"),
        (lambda asked, task: task["metadata"].update(more=1), "metadata is not as asked"),
        (lambda asked, task: asked.patches.append(Patch("edit", 1, 200)), "metadata is not as asked"),
        (lambda asked, task: asked.cancels.append(202), "cancelled, and yet not revoked"),
        (lambda asked, task: task.update(status="REVOKED"), "revoked, though nobody was told so"),
        (lambda asked, task: task.update(_id="b"), "accepted, and there is no document"),
        (lambda asked, task: setattr(asked, "status", 503), "refused with 503, and yet taken"),
    ],
)
def test_whatever_is_not_as_asked_is_found(asked: Asked, task: Document, change: Change, what: str) -> None:
    change(asked, task)
    assert complaints(asked, [task], first_final=task["status"]) == [what]


def test_a_failure_is_told_in_its_own_words(asked: Asked, task: Document) -> None:
    result = json.dumps({"exc_type": "Reject", "exc_message": ["requeue=False"], "exc_module": "celery.exceptions"})
    (defect,) = checks.of_task(asked, task | {"status": "FAILURE", "result": result}, lambda key: None)
    assert (defect.what, defect.detail) == ("failed", "Reject: requeue=False")
    shown = defect.to_document()
    assert [line.split()[1] for line in shown["timeline"]] == ["PENDING", "STARTED", "SUCCESS"]


def test_a_final_state_that_changes_is_found_unless_a_failure_is_mended(asked: Asked, task: Document) -> None:
    assert complaints(asked, [task], first_final="REVOKED") == ["a final state changed"]
    assert complaints(asked, [task], first_final="FAILURE") == []


@pytest.mark.parametrize("status", [200, 0, 503])
def test_an_edit_that_was_acknowledged_must_be_there_and_any_other_may(
    asked: Asked, task: Document, status: int
) -> None:
    asked.patches = [Patch("edit", 1, status)]
    assert (complaints(asked, [task]) == []) == (status != 200)
    task["metadata"]["edit"] = 1
    assert complaints(asked, [task]) == []


def test_what_was_refused_may_be_recorded_as_failed_if_it_never_ran(asked: Asked, task: Document) -> None:
    asked.status, asked.task_id = 503, None
    unpublished = task | {"status": "FAILURE", "timeline": [task["timeline"][0]]}
    assert complaints(asked, [unpublished]) == []
    assert complaints(asked, []) == []
    assert complaints(asked, [unpublished | {"timeline": task["timeline"]}]) == ["refused with 503, and yet taken"]


def test_where_no_answer_came_it_may_have_been_taken_and_must_then_be_right(asked: Asked, task: Document) -> None:
    asked.status, asked.task_id = 0, None
    assert complaints(asked, []) == []
    assert complaints(asked, [task]) == []
    assert complaints(asked, [task | {"status": "STARTED"}], first_final="STARTED") == ["not in a final state"]


def test_documents_that_nobody_asked_for_and_doubles_are_found(asked: Asked, task: Document) -> None:
    strange = task | {"_id": "b", "metadata": {}}
    assert complaints(asked, [task, strange]) == ["a document that nobody asked for"]
    assert complaints(asked, [task, task | {"_id": "b"}]) == ["asked for once, and recorded more often"]


def test_answers_are_late_or_missing_only_where_nothing_was_done_to_the_web() -> None:
    replies = [Reply("GET", "/tasks", 100, 9, 200, None), Reply("GET", "/tasks", 100, 1, 0, None)]
    redis = Happened(Fault("kill", "redis", 5), 95, 105)
    web = Happened(Fault("freeze", "web", 5), 95, 105)

    def whats(found: list[Defect]) -> list[str]:
        return [defect.what for defect in found]

    assert whats(checks.of_replies(replies, [redis])) == ["a late answer", "no answer"]
    assert checks.of_replies(replies, [web]) == []
    assert checks.of_replies([Reply("GET", "/x?sort=-_id", 100, 20, 503, None)], []) == []


def test_a_second_beginning_needs_a_reason_at_one_of_its_workers_or_at_a_server(task: Document) -> None:
    queued_at = datetime(2020, 1, 1, tzinfo=UTC)
    begun = [{"at": queued_at, "status": "STARTED", "note": f"{name}@soak"} for name in ("w1", "w2")]
    task |= {"queued_at": queued_at, "name": "practice", "timeline": begun}
    ended = {"a": queued_at.timestamp() + 5}

    def whats(*faults: Fault) -> list[str]:
        happened = [Happened(fault, queued_at.timestamp() + 1, queued_at.timestamp() + 2) for fault in faults]
        return [defect.what for defect in checks.of_beginnings([task], ended, happened)]

    assert whats() == ["begun again without a reason"]
    assert whats(Fault("kill", "web", 1), Fault("reset", "redis of w3", 1)) == ["begun again without a reason"]
    for reason in ("w1", "redis", "redis and mongodb", "redis of w1", "mongodb of all"):
        assert whats(Fault("kill", reason, 1)) == []
    task["timeline"] = begun[:1]
    assert whats() == []


def test_slots_that_are_used_are_counted() -> None:
    def ran(start: int, end: int) -> Document:
        return {"started_at": start, "date_done": end}

    assert at_once([]) == 0
    assert at_once([ran(0, 2), ran(2, 4), ran(4, 6)]) == 1
    assert at_once([ran(0, 3), ran(1, 2), ran(2, 4)]) == 2
