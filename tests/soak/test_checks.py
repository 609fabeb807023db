"""The checks of the soak find defects. Each test breaks one thing, and the checks must report exactly that."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.soak import checks, data
from tests.soak.checks import Defect
from tests.soak.data import Document, KnownJoin, OrdersOf
from tests.soak.faults import Fault, InjectedFault
from tests.soak.ledger import Patch, Reply, Submission
from tests.soak.watch import max_concurrency
from tests.worker_tasks.joins.reference import joined
from worker_tasks.joins.spec import spec

JOIN = KnownJoin("items", "key", "tags", "key", 100, 400)
KEY = "join_result:1"


def stored(rows: list[Document]) -> bytes:
    return ("[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]").encode()


RIGHT = stored(list(JOIN.rows()))
COUNT = len(list(JOIN.rows()))


@pytest.fixture
def submission() -> Submission:
    return Submission(1, "stream", {"soak": "7-1", "reason": "test"}, JOIN, status=202, task_id="a")


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


def defect_titles(
    submission: Submission, tasks: list[Document], result: bytes | None = RIGHT, first_final: str = "SUCCESS"
) -> list[str]:
    found = checks.check_everything([submission], tasks, {KEY: result}.get, {"a": first_final})
    return [defect.title for defect in found]


def test_a_right_task_has_no_defects(submission: Submission, task: Document) -> None:
    assert defect_titles(submission, [task]) == []


@pytest.mark.parametrize("kind", ["left", "inner", "semi", "anti"])
@pytest.mark.parametrize("shape", ["rows", "array", "count"])
@pytest.mark.parametrize("sides", [("items", "key", "tags", "key"), ("orders", "userId", "users", "_id")])
def test_the_expected_rows_agree_with_the_reference_join(
    kind: str, shape: str, sides: tuple[str, str, str, str]
) -> None:
    join = KnownJoin(*sides, 100, 130, kind, shape)
    parsed = spec.parse_spec(join.spec() | {"match": {}}, {data.DATABASE})
    documents = {name: data.documents(name) for name in data.COLLECTIONS}
    documents |= {sides[0]: documents[sides[0]][100:130]}
    reference = sorted(data.canonical(row) for row in joined(parsed, documents))
    assert sorted(data.canonical(row) for row in join.rows()) == reference
    assert reference or (kind == "anti")


def test_an_unknown_user_has_no_row() -> None:
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
    ("tamper", "message"),
    [
        (lambda text: text[:500] + bytes(200) + text[700:], "200 NUL bytes"),
        (lambda text: text[: len(text) // 2], "not JSON"),
        (swap_a_byte, "1 missing, 1 too many"),
        (lose_a_row, "the count is"),
        (double_a_row, "1 missing, 1 too many"),
        (lambda text: b"[]", "0 rows of"),
        (lambda text: b"{}", "not a JSON array"),
    ],
)
def test_a_tampered_result_is_found(
    submission: Submission, task: Document, tamper: Callable[[bytes], bytes], message: str
) -> None:
    tampered = tamper(RIGHT)
    defects = checks.check_task(submission, task, lambda key: tampered)
    assert {defect.title for defect in defects} == {"result is wrong"}
    assert message in " ".join(defect.detail for defect in defects)


def test_a_wrong_count_and_a_missing_result_are_found(submission: Submission, task: Document) -> None:
    assert defect_titles(submission, [task], None) == ["result gone"]
    wrong = task | {"result": json.dumps({"redis_key": KEY, "count": COUNT + 1})}
    assert defect_titles(submission, [wrong]) == ["result is wrong"]


def test_a_partial_result_may_lack_rows_but_may_have_no_wrong_ones(submission: Submission, task: Document) -> None:
    submission.cancels = [202]
    first_rows = list(JOIN.rows())[:50]
    revoked = task | {"status": "REVOKED", "result": "null", "partial": {"redis_key": KEY, "count": 50}}
    assert defect_titles(submission, [revoked], stored(first_rows), "REVOKED") == []
    assert defect_titles(submission, [revoked], None, "REVOKED") == []
    assert defect_titles(submission, [revoked], stored([*first_rows[1:], first_rows[2]]), "REVOKED") == [
        "partial result is wrong"
    ]


Change = Callable[[Submission, Document], Any]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda submission, task: task.update(status="STARTED"), "not in a final state"),
        (lambda submission, task: task["metadata"].pop("reason"), "metadata is wrong"),
        (lambda submission, task: task["metadata"].update(more=1), "metadata is wrong"),
        (lambda submission, task: submission.patches.append(Patch("edit", 1, 200)), "metadata is wrong"),
        (lambda submission, task: submission.cancels.append(202), "cancelled, but not revoked"),
        (lambda submission, task: task.update(status="REVOKED"), "revoked, but never cancelled"),
        (lambda submission, task: task.update(_id="b"), "accepted, but there is no document"),
        (lambda submission, task: setattr(submission, "status", 503), "refused with 503, but accepted"),
    ],
)
def test_every_kind_of_defect_is_found(submission: Submission, task: Document, change: Change, title: str) -> None:
    change(submission, task)
    assert defect_titles(submission, [task], first_final=task["status"]) == [title]


def test_a_failure_is_reported_with_its_own_message(submission: Submission, task: Document) -> None:
    result = json.dumps({"exc_type": "Reject", "exc_message": ["requeue=False"], "exc_module": "celery.exceptions"})
    (defect,) = checks.check_task(submission, task | {"status": "FAILURE", "result": result}, lambda key: None)
    assert (defect.title, defect.detail) == ("failed", "Reject: requeue=False")
    shown = defect.to_document()
    assert [line.split()[1] for line in shown["timeline"]] == ["PENDING", "STARTED", "SUCCESS"]


def test_a_changed_final_state_is_found_unless_it_was_a_failure(submission: Submission, task: Document) -> None:
    assert defect_titles(submission, [task], first_final="REVOKED") == ["a final state changed"]
    assert defect_titles(submission, [task], first_final="FAILURE") == []


@pytest.mark.parametrize("status", [200, 0, 503])
def test_an_acknowledged_edit_must_be_stored_and_any_other_may_be(
    submission: Submission, task: Document, status: int
) -> None:
    submission.patches = [Patch("edit", 1, status)]
    assert (defect_titles(submission, [task]) == []) == (status != 200)
    task["metadata"]["edit"] = 1
    assert defect_titles(submission, [task]) == []


def test_a_refused_task_may_be_recorded_as_failed_if_it_never_ran(submission: Submission, task: Document) -> None:
    submission.status, submission.task_id = 503, None
    unpublished = task | {"status": "FAILURE", "timeline": [task["timeline"][0]]}
    assert defect_titles(submission, [unpublished]) == []
    assert defect_titles(submission, []) == []
    assert defect_titles(submission, [unpublished | {"timeline": task["timeline"]}]) == [
        "refused with 503, but accepted"
    ]


def test_a_submission_without_a_response_may_be_accepted_and_must_then_be_right(
    submission: Submission, task: Document
) -> None:
    submission.status, submission.task_id = 0, None
    assert defect_titles(submission, []) == []
    assert defect_titles(submission, [task]) == []
    assert defect_titles(submission, [task | {"status": "STARTED"}], first_final="STARTED") == ["not in a final state"]


def test_unknown_and_duplicate_documents_are_found(submission: Submission, task: Document) -> None:
    unknown = task | {"_id": "b", "metadata": {}}
    assert defect_titles(submission, [task, unknown]) == ["a document without a submission"]
    assert defect_titles(submission, [task, task | {"_id": "b"}]) == ["submitted once, but recorded several times"]


def test_a_late_or_missing_answer_is_a_defect_unless_the_web_process_was_hit() -> None:
    replies = [Reply("GET", "/tasks", 100, 9, 200, None), Reply("GET", "/tasks", 100, 1, 0, None)]
    redis = InjectedFault(Fault("kill", "redis", 5), 95, 105)
    web = InjectedFault(Fault("freeze", "web", 5), 95, 105)

    def titles(defects: list[Defect]) -> list[str]:
        return [defect.title for defect in defects]

    assert titles(checks.check_replies(replies, [redis])) == ["a late answer", "no answer"]
    assert checks.check_replies(replies, [web]) == []
    assert checks.check_replies([Reply("GET", "/x?sort=-_id", 100, 20, 503, None)], []) == []


def test_a_second_start_needs_a_fault_of_one_of_its_workers_or_of_a_server(task: Document) -> None:
    queued_at = datetime(2020, 1, 1, tzinfo=UTC)
    starts = [{"at": queued_at, "status": "STARTED", "note": f"{name}@soak"} for name in ("w1", "w2")]
    task |= {"queued_at": queued_at, "name": "practice", "timeline": starts}
    ended = {"a": queued_at.timestamp() + 5}

    def titles(*faults: Fault) -> list[str]:
        injected = [InjectedFault(fault, queued_at.timestamp() + 1, queued_at.timestamp() + 2) for fault in faults]
        return [defect.title for defect in checks.check_repeats([task], ended, injected)]

    assert titles() == ["started again without a reason"]
    assert titles(Fault("kill", "web", 1), Fault("reset", "redis of w3", 1)) == ["started again without a reason"]
    for reason in ("w1", "redis", "redis and mongodb", "redis of w1", "mongodb of all"):
        assert titles(Fault("kill", reason, 1)) == []
    task["timeline"] = starts[:1]
    assert titles() == []


def test_concurrent_tasks_are_counted() -> None:
    def ran(start: int, end: int) -> Document:
        return {"started_at": start, "date_done": end}

    assert max_concurrency([]) == 0
    assert max_concurrency([ran(0, 2), ran(2, 4), ran(4, 6)]) == 1
    assert max_concurrency([ran(0, 3), ran(1, 2), ran(2, 4)]) == 2
