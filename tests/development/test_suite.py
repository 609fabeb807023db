"""The arguments and the number of workers that bin/test passes to pytest."""

import os

import pytest

from development import suite
from tests.support import ROOT


@pytest.mark.parametrize("arguments", [[], ["-k", "ledger"], ["tests/webapp", "-x"]])
def test_folders_run_in_parallel(arguments: list[str]) -> None:
    assert suite.pytest_arguments(arguments) == [*suite.IN_PARALLEL, *arguments]


@pytest.mark.parametrize("name", ["tests/test_readme.py", "tests/test_readme.py::test_x"])
def test_a_single_file_runs_in_one_process(name: str) -> None:
    assert suite.pytest_arguments([name, "-x"]) == [name, "-x"]


def test_quick_leaves_out_slow_tests() -> None:
    quick = suite.pytest_arguments(["quick", "-x"])
    assert quick == [*suite.IN_PARALLEL, *suite.QUICK, "-x"]
    assert "--ignore=tests/browser" in quick


@pytest.mark.parametrize(("gigabytes", "count"), [(0.5, 1), (2, 1), (4, 2), (100, 5)])
def test_memory_limits_the_number_of_workers(gigabytes: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(suite, "available_memory", lambda: int(gigabytes * 1024**3))
    assert suite.worker_count() == count


def test_the_slow_folders_exist() -> None:
    assert [folder for folder in suite.SLOW_FOLDERS if not (ROOT / folder).is_dir()] == []
