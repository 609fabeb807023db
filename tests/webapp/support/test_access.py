"""Routes find tasks only through webapp/support/access.py, and an unknown task is the same 404 everywhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support import ROOT
from webapp.support import access
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import TaskNotFound

ACCESS_MODULE = "webapp/support/access.py"
#: The functions that find task documents; other names of these modules may be used anywhere.
FINDERS = {
    "worker_tasks.records.ledger": {"find_task"},
    "worker_tasks.records.task_search": {
        *("search", "filter_choices", "metadata_keys", "previous_run", "unchanged_since", "filter_unchanged"),
        *("leader_of", "followers_of"),
    },
}
FORBIDDEN = {f"{module}.{name}" for module, names in FINDERS.items() for name in names}
#: The raw clients can read everything. Only the health check may use them.
FORBIDDEN_BUT_FOR_HEALTH = "worker_tasks.infra.connections.connections"


def used(source: str) -> Iterator[str]:
    """The full names of everything a module imports, and of the attributes it reads from its imports."""
    known: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from known.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := known.get(ast.unparse(node.value))):
            yield f"{name}.{node.attr}"


def forbidden_in(source: str, path: str = "webapp/x.py") -> set[str]:
    more = set() if path == "webapp/ops/health.py" else {FORBIDDEN_BUT_FOR_HEALTH}
    starred = {f"{module}.*" for module in FINDERS}
    return set(used(source)) & (FORBIDDEN | more | starred)


@pytest.mark.parametrize(
    "source",
    [
        "from worker_tasks.records import ledger\nledger.find_task('x')",
        "from worker_tasks.records import ledger as tasks\nlist(map(tasks.find_task, 'x'))",
        "from worker_tasks.records.ledger import find_task",
        "from worker_tasks.records.ledger import find_task as read",
        "from worker_tasks.records.ledger import *",
        "import worker_tasks.records.ledger\nworker_tasks.records.ledger.find_task('x')",
        "import worker_tasks.records.ledger as tasks\ntasks.find_task('x')",
        "def late():\n    from worker_tasks.records import task_search\n    return task_search.search",
        "from worker_tasks.infra.connections import connections",
    ],
)
def test_the_scan_sees_every_way_to_use_a_finder(source: str) -> None:
    assert forbidden_in(source)


def test_the_scan_allows_names_that_find_no_task() -> None:
    assert not forbidden_in("from worker_tasks.records import ledger\nledger.now()\nresults.find('x')")
    assert not forbidden_in("from worker_tasks.records.task_search import Cursor")
    assert not forbidden_in("from worker_tasks.infra.connections import Document")


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "webapp").rglob("*.py")))
def test_no_module_but_one_finds_tasks(path: str) -> None:
    found = forbidden_in(Path(ROOT / path).read_text(), path)
    if path == ACCESS_MODULE:
        assert "worker_tasks.records.ledger.find_task" in found
    else:
        assert found == set()


def test_the_list_of_finders_is_complete() -> None:
    for module, names in FINDERS.items():
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert names <= functions.keys()
        returning = {
            name
            for name, function in functions.items()
            if not name.startswith("_") and function.returns and "Document" in ast.unparse(function.returns)
        }
        # These build a document or a filter and find nothing.
        assert returning - {"new_document", "transition_filter", "timeline_event"} <= names


def test_the_viewer_is_made_once_for_each_request(app: Flask) -> None:
    with app.test_request_context():
        first = access.viewer()
        assert access.viewer() is first
        assert first == access.Viewer(name=None)
    with app.test_request_context():
        assert access.viewer() is not first


def send(client: FlaskClient, method: str, path: str) -> TestResponse:
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/practice").text)
    assert token
    body: dict[str, Any] = {"data": {"csrf_token": token[1], "format": "csv"}}
    if method == "PATCH":
        body = {"json": {"metadata": {"a": "b"}}}
    return client.open(path, method=method, headers={"Accept": "application/json"}, **body)


UNKNOWN = {
    "GET": [
        *("/tasks/none", "/tasks/none/result", "/tasks/none/result/columns", "/tasks/none/result/unmatched/x"),
        *("/tasks/none/result/files", "/task/none", "/comparison?older=none&newer=other"),
        *("/api/v1/tasks/none", "/api/v1/tasks/none/result", "/api/v1/tasks/none/result.csv"),
        *("/api/v1/tasks/none/profile", "/api/v1/tasks/none/provenance", "/api/v1/comparison?older=none&newer=other"),
    ],
    "POST": [
        *("/tasks/none/cancellation", "/tasks/none/runs", "/tasks/none/result/keeping"),
        *("/tasks/none/result/discarding", "/tasks/none/result/files"),
    ],
    "DELETE": ["/api/v1/tasks/none"],
    "PATCH": ["/api/v1/tasks/none"],
}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, paths in UNKNOWN.items() for path in paths])
def test_an_unknown_task_is_the_same_404_everywhere(client: FlaskClient, servers: None, method: str, path: str) -> None:
    answer = send(client, method, path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.get_json()["title"] == "No such task"
    assert answer.get_json()["detail"] == "There is no task with this id."


def test_a_task_hidden_from_the_viewer_is_answered_like_an_unknown_one(
    app: Flask, client: FlaskClient, waiting_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = document(waiting_task)

    def nothing(viewer: access.Viewer, task_id: str) -> Document:
        raise TaskNotFound(task_id)

    monkeypatch.setattr(access, "task_for", nothing)
    rules = [rule for rule in app.url_map.iter_rules() if "task_id" in rule.arguments]
    assert len(rules) > 15
    for rule in rules:
        values = {"task_id": waiting_task, "name": "csv"}
        path = app.url_map.bind("localhost").build(rule.endpoint, {name: values[name] for name in rule.arguments})
        for method in sorted({"GET", "POST", "PATCH", "DELETE"} & (rule.methods or set())):
            answer = send(client, method, path)
            if rule.endpoint == "status.task_status":
                # The polling page gets a fragment that ends the polling.
                assert (answer.status_code, "hx-get" in answer.text) == (200, False)
            else:
                assert answer.status_code == 404, (method, path)
    assert document(waiting_task) == before


def document(task_id: str) -> Any:
    return connections().tasks.find_one({"_id": task_id})
