"""Storing and rebuilding a named error keeps its class and its message."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator

import pytest

from tests.test_imports import modules, python
from worker_tasks.infra import errors
from worker_tasks.infra.errors import ERRORS_BY_CODE, DovetailError, InvalidInput, ServiceUnavailable
from worker_tasks.joins.run import run_state
from worker_tasks.queue.celery_app import app

SENTENCE = "A sentence that no error has by itself."


#: Imports the modules in the arguments, and prints the errors they define that are missing from the table.
FIND_MISSING = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
from worker_tasks.infra.errors import ERRORS_BY_CODE, DovetailError

def with_subclasses(base):
    return [base, *(kind for child in base.__subclasses__() for kind in with_subclasses(child))]

tree = with_subclasses(DovetailError)
print([kind.__name__ for kind in tree if "code" not in vars(kind) or ERRORS_BY_CODE.get(kind.code) != kind])
"""


def all_errors() -> Iterator[DovetailError]:
    """Every named error with its default message, and again with another one."""
    for kind in ERRORS_BY_CODE.values():
        if kind is InvalidInput:
            yield InvalidInput({"join.from": SENTENCE, "join.match": "is wrong."})
            yield InvalidInput({})
        else:
            yield kind()
            yield kind(SENTENCE)
    yield ServiceUnavailable(service="MongoDB")
    yield ServiceUnavailable(SENTENCE, service="Redis", title="Redis is full")


def through_a_run(error: DovetailError) -> DovetailError:
    return run_state.failure_from_text(run_state.failure_to_text(error))


def through_celery(error: DovetailError) -> BaseException | None:
    backend = app.backend
    return backend.exception_to_python(backend.decode(backend.encode(backend.prepare_exception(error))))


def through_both(error: DovetailError) -> BaseException | None:
    """Stores the error in the run and then in Celery, as for a join in parts if another worker records the outcome."""
    return through_celery(through_a_run(error))


def pickled(error: DovetailError) -> BaseException:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own data


def test_every_error_class_is_in_the_table_under_its_own_code() -> None:
    process = python("-c", FIND_MISSING, *(name for name in modules() if not name.startswith("development")))
    assert (process.stdout.strip(), process.stderr) == ("[]", "")


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("rebuild", [through_a_run, through_celery, through_both, pickled, copy.copy])
def test_storing_and_rebuilding_an_error_keeps_it_equal(
    error: DovetailError, rebuild: Callable[[DovetailError], BaseException | None]
) -> None:
    rebuilt = rebuild(error)
    assert isinstance(rebuilt, DovetailError)
    assert (type(rebuilt), rebuilt.code, rebuilt.message) == (type(error), error.code, error.message)
    assert str(rebuilt) == str(error) == error.message
    assert rebuilt.message.count(SENTENCE) <= 1
    if isinstance(error, InvalidInput) and isinstance(rebuilt, InvalidInput):
        assert rebuilt.errors == error.errors


def test_an_error_of_another_version_keeps_its_message() -> None:
    rebuilt = run_state.failure_from_text(json.dumps(["OfAnotherVersion", [SENTENCE]]))
    assert (type(rebuilt), rebuilt.message) == (DovetailError, SENTENCE)
    assert errors.rebuild_error("InvalidInput", SENTENCE).message == SENTENCE
    assert errors.rebuild_error("TookTooLong").message
