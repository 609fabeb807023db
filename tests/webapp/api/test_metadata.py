"""Changing metadata through the API, with and without expected values."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.worker_tasks.support import new_id, task_in
from worker_tasks.records import ledger

Metadata = dict[str, Any]
Patch = Callable[..., TestResponse]


@pytest.fixture
def patch(client: FlaskClient) -> Patch:
    def send(task_id: str, metadata: Metadata, **more: Any) -> TestResponse:
        return client.patch(f"/api/v1/tasks/{task_id}", json={"metadata": metadata, **more})

    return send


def test_a_patch_keeps_nulls_of_other_keys(patch: Patch, servers: None) -> None:
    task_id = task_in(states.SUCCESS, metadata={"reviewed": None})
    assert patch(task_id, {"seen": True}).status_code == 200
    assert ledger.find_task(task_id)["metadata"] == {"reviewed": None, "seen": True}


@pytest.mark.parametrize(
    ("expected", "changes", "at_last"),
    [
        ({"team": "blue"}, {"team": "green"}, {"team": "green", "cost": 7}),
        ({"cost": 7.0}, {"cost": 8, "new": 1}, {"team": "blue", "cost": 8, "new": 1}),
        ({"new": None}, {"new": 1}, {"team": "blue", "cost": 7, "new": 1}),
        ({"team": "blue"}, {"team": None}, {"cost": 7}),
        ({"team": "before"}, {"team": "blue", "new": 1}, {"team": "blue", "cost": 7, "new": 1}),
    ],
    ids=["changed", "a number", "added", "deleted", "sent again"],
)
def test_a_patch_may_state_the_expected_values(
    patch: Patch, servers: None, expected: Metadata, changes: Metadata, at_last: Metadata
) -> None:
    task_id = task_in(states.SUCCESS, metadata={"team": "blue", "cost": 7})
    answer = patch(task_id, changes, expected=expected)
    assert (answer.status_code, answer.get_json()["metadata"]) == (200, at_last)


@pytest.mark.parametrize(
    ("expected", "changes", "conflicts"),
    [
        ({"team": "red"}, {"team": "green", "new": 1}, {"team": {"yours": "green", "stored": "blue"}}),
        ({"gone": [1]}, {"gone": [2]}, {"gone": {"yours": [2], "stored": None}}),
        ({"team": "red"}, {"team": None}, {"team": {"yours": None, "stored": "blue"}}),
        ({"cost": None}, {"cost": {"eur": 8}}, {"cost": {"yours": {"eur": 8}, "stored": 7}}),
    ],
    ids=["both change", "deleted, changed", "changed, deleted", "both add"],
)
def test_a_patch_with_outdated_expectations_gets_both_values(
    patch: Patch, servers: None, expected: Metadata, changes: Metadata, conflicts: Metadata
) -> None:
    task_id = task_in(states.SUCCESS, metadata={"team": "blue", "cost": 7})
    before = ledger.find_task(task_id)
    answer = patch(task_id, changes, expected=expected)
    assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
    assert answer.get_json()["conflicts"] == conflicts
    assert ledger.find_task(task_id) == before


@pytest.mark.parametrize(
    ("expected", "field"),
    [({"other": 1}, "expected.other"), ("team", "expected"), ({"team": 2**70}, "expected"), (None, "expected")],
)
def test_an_invalid_expectation_is_refused_by_name(patch: Patch, servers: None, expected: Any, field: str) -> None:
    answer = patch(task_in(states.SUCCESS), {"team": "green"}, expected=expected)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_a_patch_of_an_unknown_task_is_not_found_whatever_it_expects(patch: Patch, servers: None) -> None:
    assert patch(new_id(), {"team": "green"}, expected={"team": "blue"}).status_code == 404
