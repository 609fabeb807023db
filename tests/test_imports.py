"""Imports follow the layers, are never circular, and work for each module by itself."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("webapp", "worker_tasks", "development")
#: Packages that only worker_tasks may import.
DRIVERS = {"redis", "pymongo", "bson", "gridfs", "kombu", "celery"}

#: Imports each module in a child process that has imported none of our modules; third-party packages are preloaded.
EACH_ALONE = """
import importlib, os, sys, traceback
import celery, duckdb, flask, flask_wtf, honcho.printer, humanize, playwright.sync_api, pydantic_settings
import pymongo, redis

failed = []
for module in sys.argv[1:]:
    if (child := os.fork()) == 0:
        try:
            importlib.import_module(module)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(module)
sys.exit(f"cannot be imported alone: {failed}" if failed else 0)
"""


@cache
def modules() -> dict[str, Path]:
    """Returns the path of every module by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Returns all imports of a module: our modules by dotted name, others by top-level name."""
    tree = ast.parse(modules()[module].read_text())
    return frozenset(name for node in ast.walk(tree) for name in _named(node))


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in modules() else str(node.module) for name in inner]
    else:
        return
    for name in names:
        yield name if name in modules() else name.partition(".")[0]


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a fresh interpreter whose environment names no servers."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


#: Packages from the bottom up; each imports only earlier ones. A module beside the packages is its own entry.
LAYERS = [
    "worker_tasks.infra",
    "worker_tasks.records",
    "worker_tasks.results",
    "worker_tasks.queue",
    "worker_tasks.joins.spec",
    "worker_tasks.joins.matching",
    "worker_tasks.joins.plan",
    "worker_tasks.joins.preflight",
    "worker_tasks.joins.saved",
    "worker_tasks.joins.reading",
    "worker_tasks.joins.scan",
    "worker_tasks.joins.run",
    "worker_tasks.analysis",
    "worker_tasks.worker",
    "worker_tasks.submission",
    "worker_tasks.tasks",
    "worker_tasks.celery_app",
    "worker_tasks.client",
    "worker_tasks.release",
    "webapp.presenters",
    "webapp.support",
    "webapp.builder",
    "webapp.results",
    "webapp.tasks",
    "webapp.api",
    "webapp.ops",
    "webapp.application",
]


def layer(module: str) -> int | None:
    """Returns the index of a module's layer; None for packages that only contain other layers."""
    return next((index for index, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}.")), None)


def test_every_module_belongs_to_a_layer() -> None:
    containers = {"webapp", "worker_tasks", "worker_tasks.joins"}
    ours = {module for module in modules() if module.partition(".")[0] in {"webapp", "worker_tasks"}}
    assert {module for module in ours if layer(module) is None} == containers


def test_imports_point_down() -> None:
    upward = [
        (module, name)
        for module in modules()
        for name in imports(module) & modules().keys()
        if (own := layer(module)) is not None and (imported := layer(name)) is not None and imported > own
    ]
    assert upward == []


def test_the_scan_finds_modules_and_their_imports() -> None:
    assert {
        "webapp",
        "webapp.api.compat",
        "worker_tasks.joins.plan.user_orders",
        "development.samples",
    } <= modules().keys()
    assert {"worker_tasks.records.ledger", "worker_tasks.records.metadata", "celery"} <= imports(
        "worker_tasks.submission"
    )
    assert {"worker_tasks.submission", "webapp.presenters.task_text", "flask"} <= imports("webapp.api.compat")


def test_no_imports_are_circular() -> None:
    TopologicalSorter({module: imports(module) & modules().keys() for module in modules()}).prepare()


def test_every_module_can_be_imported_alone_and_without_settings() -> None:
    run = python("-c", EACH_ALONE, *sorted(modules()))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("worker_tasks", {"webapp", "development", "flask", "flask_wtf", "wtforms", "werkzeug", "humanize"}),
        ("webapp", {"development"}),
        ("development", {"webapp", "worker_tasks"}),
    ],
)
def test_a_package_imports_none_of_the_packages_that_it_must_not_know(package: str, foreign: set[str]) -> None:
    for module in modules():
        if module.partition(".")[0] == package:
            assert not {name.partition(".")[0] for name in imports(module)} & foreign, module


def test_a_worker_loads_no_web_code() -> None:
    ours = [module for module in modules() if module.partition(".")[0] == "worker_tasks"]
    loaded = python("-c", f"import sys, {', '.join(ours)}; print(*sys.modules)")
    assert loaded.returncode == 0, loaded.stderr
    names = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert "worker_tasks" in names
    assert not names & {"flask", "flask_wtf", "wtforms", "werkzeug", "webapp", "development"}


def test_the_web_process_loads_neither_duckdb_nor_xlsxwriter() -> None:
    loaded = python("-c", "import sys, webapp.application; print(*sys.modules)")
    assert loaded.returncode == 0, loaded.stderr
    names = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert "worker_tasks" in names
    assert not names & {"duckdb", "xlsxwriter"}


def test_the_web_process_imports_no_driver() -> None:
    for module in modules():
        if module.partition(".")[0] == "webapp":
            assert not imports(module) & DRIVERS, module
