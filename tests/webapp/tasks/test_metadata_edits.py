"""If several people edit metadata at once, each change is kept or reported as a conflict, in the form and the API."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from threading import Barrier
from typing import Any

import pytest
from celery import states
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.worker_tasks.support import UNATTENDED, task_in
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger
from worker_tasks.records.metadata import MAX_BYTES, MAX_KEYS
from worker_tasks.tasks import long_running_task

Metadata = dict[str, Any]


class MetadataInputs(HTMLParser):
    """The inputs of the metadata form, as a browser submits them."""

    def __init__(self, page: str):
        super().__init__()
        self.fields: dict[str, str] = {}
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = attributes["action"].endswith("/metadata")
        if tag == "input" and self._inside:
            text = attributes.get("value", "").replace("\0", "\ufffd")
            if attributes["type"] == "text":
                text = text.replace("\n", "").replace("\r", "")
            self.fields[attributes["name"]] = text.replace("\n", "\r\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


class Person:
    """A person with the page of a task open, in a browser without JavaScript."""

    def __init__(self, client: FlaskClient, task_id: str):
        self._client = client
        self._address = f"/tasks/{task_id}"
        self.page = client.get(self._address).text
        self.fields = MetadataInputs(self.page).fields

    @property
    def rows(self) -> dict[str, str]:
        """The metadata in the form, without its empty row."""
        keys = {name: key for name, key in self.fields.items() if name.endswith("-key") and key}
        return {key: self.fields[name.replace("-key", "-value")] for name, key in keys.items()}

    def types(self, changes: Metadata) -> "Person":
        """Types values by key into their rows. The one empty row takes at most one new key."""
        rows = {key: name for name, key in self.fields.items() if name.endswith("-key")}
        for key, value in changes.items():
            name = rows.get(key, rows[""])
            self.fields |= {name: key, name.replace("-key", "-value"): value}
        return self

    def renames(self, key: str, other: str) -> "Person":
        name = next(name for name, text in self.fields.items() if name.endswith("-key") and text == key)
        self.fields[name] = other
        return self

    def saves(self) -> int:
        answer = self._client.post(f"{self._address}/metadata", data=self.fields, headers={"Accept": "text/html"})
        self.page, self.fields = answer.text, MetadataInputs(answer.text).fields
        return answer.status_code


Open = Callable[[str], Person]


@pytest.fixture
def open_page(app: Flask) -> Open:
    """Opens the page of a task; each call is another person."""
    return lambda task_id: Person(app.test_client(), task_id)


@pytest.fixture
def patch(app: Flask) -> Callable[..., TestResponse]:
    def send(task_id: str, metadata: Metadata) -> TestResponse:
        return app.test_client().patch(f"/api/v1/tasks/{task_id}", json={"metadata": metadata})

    return send


Patch = Callable[..., TestResponse]


def task_with(metadata: Metadata) -> str:
    return long_running_task.apply_async(["some input"], queue=UNATTENDED, metadata=metadata).id


def stored(task_id: str) -> Metadata:
    metadata: Metadata = ledger.find_task(task_id)["metadata"]
    return metadata


def test_untouched_values_keep_their_type(open_page: Open, servers: None) -> None:
    task_id = task_with({"team": "blue", "cost": 7, "tags": ["a", "b"], "old": "x", "rest": None})
    anna = open_page(task_id).types({"team": "green", "old": "", "new": "1"})
    assert anna.saves() == 303
    assert stored(task_id) == {"team": "green", "cost": 7, "tags": ["a", "b"], "rest": None, "new": "1"}


def test_characters_that_an_input_cannot_hold_are_kept(open_page: Open, servers: None) -> None:
    before = {"lines": "one\ntwo\r\nthree", "nul": "a\0b", "empty": "", "a\nkey": "x", "quoted": '"<&>\'"', "💶": "ü"}
    task_id = task_with(before)
    assert open_page(task_id).types({"new": "1"}).saves() == 303
    assert stored(task_id) == before | {"new": "1"}


def test_an_unchanged_form_changes_nothing(open_page: Open, servers: None) -> None:
    task_id = task_with({"team": "blue", "cost": 7})
    version = ledger.find_task(task_id)["version"]
    assert open_page(task_id).saves() == 303
    assert ledger.find_task(task_id)["version"] == version


@pytest.mark.parametrize("status", [states.PENDING, states.STARTED, states.SUCCESS])
def test_two_people_who_change_different_keys_keep_both(open_page: Open, servers: None, status: str) -> None:
    task_id = task_in(status, metadata={"team": "blue", "old": "x", "cost": 7})
    anna, ben = open_page(task_id), open_page(task_id)
    assert ben.types({"ben": "approved", "old": ""}).saves() == 303
    assert anna.types({"anna": "seen", "team": "green"}).saves() == 303
    assert stored(task_id) == {"team": "green", "cost": 7, "ben": "approved", "anna": "seen"}
    assert ledger.find_task(task_id)["status"] == status


def test_a_change_by_the_api_survives_a_form_opened_before(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({"team": "blue", "cost": 7, "old": "x"})
    anna = open_page(task_id)
    patch(task_id, {"legal_hold": True, "cost": 8, "old": None})
    assert anna.types({"anna": "seen"}).saves() == 303
    assert stored(task_id) == {"team": "blue", "cost": 8, "legal_hold": True, "anna": "seen"}


def test_the_same_change_by_two_people_is_no_conflict(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({"team": "blue", "old": "x", "cost": 7})
    anna = open_page(task_id)
    patch(task_id, {"team": "green", "old": None, "new": 1, "cost": 8})
    assert anna.types({"team": "green", "old": "", "new": "1", "cost": "8"}).saves() == 303
    assert stored(task_id) == {"team": "green", "new": 1, "cost": 8}


@pytest.mark.parametrize(
    ("by_ben", "by_anna", "said", "at_last"),
    [
        ({"team": "red"}, {"team": "green"}, ("green", "red"), {"team": "green", "other": "o"}),
        ({"team": None}, {"team": "green"}, ("green", "<em>taken away</em>"), {"team": "green", "other": "o"}),
        ({"team": "red"}, {"team": ""}, ("<em>taken away</em>", "red"), {"other": "o"}),
        ({"new": 1}, {"new": "2"}, ("2", "1"), {"team": "blue", "other": "o", "new": "2"}),
    ],
    ids=["both change", "deleted, changed", "changed, deleted", "both add"],
)
def test_two_changes_of_the_same_key_are_a_conflict_with_both_values(
    open_page: Open, patch: Patch, by_ben: Metadata, by_anna: Metadata, said: tuple[str, str], at_last: Metadata
) -> None:
    task_id = task_with({"team": "blue", "other": "o"})
    anna = open_page(task_id).types(by_anna)
    patch(task_id, by_ben)
    before = ledger.find_task(task_id)
    assert anna.saves() == 409
    assert ledger.find_task(task_id) == before
    (key,) = by_anna
    assert f"Somebody else changed “{key}”" in anna.page
    assert f"<dt>Yours</dt><dd>{said[0]}</dd></div>" in anna.page
    assert f"<dt>Now stored</dt><dd>{said[1]}</dd></div>" in anna.page
    assert anna.rows[key] == by_anna[key]
    # The form now starts from the stored values, so that saving it again overwrites them knowingly.
    assert anna.saves() == 303
    assert stored(task_id) == at_last


def test_a_conflict_keeps_the_typed_text_and_shows_the_stored_values(
    open_page: Open, patch: Patch, servers: None
) -> None:
    task_id = task_with({"team": "blue", "cost": 7, "old": "x", "why": "audit"})
    anna = open_page(task_id).types({"team": "green", "old": "", "anna": "seen"})
    patch(task_id, {"team": "red", "cost": 8, "ben": True, "why": None})
    assert anna.saves() == 409
    assert anna.rows == {"team": "green", "cost": "8", "old": "", "ben": "true", "anna": "seen"}
    patch(task_id, {"later": 1})
    assert anna.types({"team": "purple"}).saves() == 303
    assert stored(task_id) == {"team": "purple", "cost": 8, "ben": True, "later": 1, "anna": "seen"}


def test_a_conflict_over_a_renamed_key_can_be_resolved(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id).renames("team", "group")
    patch(task_id, {"group": "red"})
    assert anna.saves() == 409
    assert stored(task_id) == {"team": "blue", "group": "red"}
    assert anna.saves() == 303
    assert stored(task_id) == {"group": "blue"}


def test_a_second_change_meanwhile_is_a_second_conflict(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id).types({"team": "green"})
    for other in ("red", "white"):
        patch(task_id, {"team": other})
        assert anna.saves() == 409
        assert stored(task_id) == {"team": other}
    assert anna.saves() == 303


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"team": "green"}, 409), ({"a.b": "some value"}, 422)],
    ids=["conflict", "mistake"],
)
def test_a_returned_form_does_not_refresh_itself(
    open_page: Open, patch: Patch, servers: None, changes: Metadata, status: int
) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id).types(changes)
    assert 'http-equiv="refresh"' in anna.page
    patch(task_id, {"team": "red"})
    assert anna.saves() == status
    # A refresh would request the form's URL, which has no page.
    assert 'http-equiv="refresh"' not in anna.page
    assert '<details class="part edit" id="edit" open>' in anna.page


def test_the_edit_page_does_not_refresh_itself(client: FlaskClient, open_page: Open, servers: None) -> None:
    task_id = task_with({"team": "blue"})
    assert f'<noscript><p class="hint"><a href="/tasks/{task_id}?edit=yes#edit">' in open_page(task_id).page
    page = client.get(f"/tasks/{task_id}?edit=yes").text
    assert 'http-equiv="refresh"' not in page
    assert '<details class="part edit" id="edit" open>' in page
    assert 'role="alert"><strong>' not in page


@pytest.mark.parametrize("key", ["a.b", "", "k" * 101])
def test_an_invalid_key_is_reported_and_changes_nothing(open_page: Open, servers: None, key: str) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id)
    anna.fields |= {"metadata-1-key": key, "metadata-1-value": "some value"}
    assert anna.saves() == 422
    assert "a key " in anna.page
    assert "&#39;key&#39;" not in anna.page
    assert anna.rows.get(key, "some value") == "some value"
    assert stored(task_id) == {"team": "blue"}


def test_a_repeated_key_is_refused(open_page: Open, servers: None) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id)
    anna.fields |= {"metadata-1-key": "team", "metadata-1-value": "green"}
    assert anna.saves() == 422
    assert "The key “team” is there twice." in anna.page
    assert stored(task_id) == {"team": "blue"}


def test_the_limits_hold_for_the_merged_metadata(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({f"key{number}": number for number in range(MAX_KEYS - 1)})
    anna = open_page(task_id).types({"anna": "seen"})
    patch(task_id, {"ben": "approved"})
    before = ledger.find_task(task_id)
    assert anna.saves() == 422
    assert "has 51 keys; at most 50 are kept" in anna.page
    assert anna.rows["anna"] == "seen"
    assert ledger.find_task(task_id) == before
    patch(task_id, {"key0": None})
    assert anna.saves() == 303


def test_metadata_of_the_largest_size_can_be_changed(open_page: Open, servers: None) -> None:
    """The body of the form is six times as long as the metadata."""
    task_id = task_with({"long": "€" * ((MAX_BYTES - 200) // 3)})
    assert open_page(task_id).types({"new": "1"}).saves() == 303
    assert stored(task_id)["new"] == "1"


def without(text: str) -> Callable[[Metadata], Iterable[tuple[str, str]]]:
    return lambda fields: ((name, value) for name, value in fields.items() if text not in name)


@pytest.mark.parametrize(
    "spoilt",
    [
        without("-was_key"),
        without("-0-was_key"),
        lambda fields: (fields | {"metadata-1-was_key": "team"}).items(),
        lambda fields: (fields | {"metadata-0-was_key": ""}).items(),
    ],
    ids=["missing", "missing in a row", "a key twice", "a value without a key"],
)
def test_a_form_without_its_original_values_is_refused(
    open_page: Open, servers: None, spoilt: Callable[[Metadata], Iterable[tuple[str, str]]]
) -> None:
    task_id = task_with({"team": "blue", "cost": 7})
    anna = open_page(task_id).types({"team": "green"})
    anna.fields = dict(spoilt(anna.fields))
    assert anna.saves() == 400
    assert "what the form was opened with. Open the page again." in anna.page
    assert stored(task_id) == {"team": "blue", "cost": 7}


@pytest.mark.parametrize("garbage", ["x", "\0", "$set", "{", "\ud7ff\uffff", "x" * 30_000])
def test_invented_original_values_are_a_conflict(open_page: Open, servers: None, garbage: str) -> None:
    task_id = task_with({"team": "blue", "cost": 7})
    anna = open_page(task_id).types({"team": "green"})
    anna.fields |= {"metadata-0-was_value": garbage, "metadata-2-was_key": garbage, "metadata-2-was_value": garbage}
    assert anna.saves() == 409
    assert stored(task_id) == {"team": "blue", "cost": 7}


def test_the_form_of_an_unknown_task_is_404(open_page: Open, servers: None) -> None:
    task_id = task_with({"team": "blue"})
    anna = open_page(task_id).types({"team": "green"})
    connections().tasks.delete_one({"_id": task_id})
    assert anna.saves() == 404


def test_thirty_changes_at_once_are_all_kept(open_page: Open, patch: Patch, servers: None) -> None:
    task_id = task_with({"first": 0})
    people = [open_page(task_id).types({f"form{number}": "x"}) for number in range(10)]
    together = Barrier(30)

    def save(person: Person) -> int:
        together.wait(timeout=10)
        return person.saves()

    def send(number: int) -> int:
        together.wait(timeout=10)
        return patch(task_id, {f"patch{number}": number}).status_code

    with ThreadPoolExecutor(30) as threads:
        saved, sent = threads.map(save, people), threads.map(send, range(20))
        assert [set(saved), set(sent)] == [{303}, {200}]
    assert stored(task_id) == (
        {"first": 0}
        | {f"form{number}": "x" for number in range(10)}
        | {f"patch{number}": number for number in range(20)}
    )
