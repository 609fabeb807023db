"""The named failures: whatever stores one and builds it again gets the same class back, and its message once."""

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

SENTENCE = "A sentence that no failure has by itself."


#: Imports the modules that are named, and says which failures they define that are not in the table.
FIND_OTHERS = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
from worker_tasks.infra.errors import ERRORS_BY_CODE, DovetailError

def kinds(of):
    return [of, *(kind for each in of.__subclasses__() for kind in kinds(each))]

tree = kinds(DovetailError)
print([kind.__name__ for kind in tree if "code" not in vars(kind) or ERRORS_BY_CODE.get(kind.code) != kind])
"""


def raised() -> Iterator[DovetailError]:
    """Each failure as it is raised: with its own sentence where it has one, and with another."""
    for kind in ERRORS_BY_CODE.values():
        if kind is InvalidInput:
            yield InvalidInput({"join.from": SENTENCE, "join.match": "is wrong."})
            yield InvalidInput({})
        else:
            yield kind()
            yield kind(SENTENCE)
    yield ServiceUnavailable(service="MongoDB")
    yield ServiceUnavailable(SENTENCE, service="Redis", title="Redis is full")


def through_a_run(failure: DovetailError) -> DovetailError:
    return run_state.failure_from_text(run_state.failure_to_text(failure))


def through_celery(failure: DovetailError) -> BaseException | None:
    backend = app.backend
    return backend.exception_to_python(backend.decode(backend.encode(backend.prepare_exception(failure))))


def through_both(failure: DovetailError) -> BaseException | None:
    """As a join in parts fails: what one part met is recorded by another."""
    return through_celery(through_a_run(failure))


def pickled(failure: DovetailError) -> BaseException:
    return pickle.loads(pickle.dumps(failure))  # noqa: S301 - written just now


def test_every_failure_of_the_tree_is_in_the_table_under_a_code_of_its_own() -> None:
    found = python("-c", FIND_OTHERS, *(name for name in modules() if not name.startswith("development")))
    assert (found.stdout.strip(), found.stderr) == ("[]", "")


@pytest.mark.parametrize("failure", list(raised()), ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("way", [through_a_run, through_celery, through_both, pickled, copy.copy])
def test_a_failure_that_is_stored_and_built_again_is_the_same(
    failure: DovetailError, way: Callable[[DovetailError], BaseException | None]
) -> None:
    again = way(failure)
    assert isinstance(again, DovetailError)
    assert (type(again), again.code, again.message) == (type(failure), failure.code, failure.message)
    assert str(again) == str(failure) == failure.message
    assert again.message.count(SENTENCE) <= 1
    if isinstance(failure, InvalidInput) and isinstance(again, InvalidInput):
        assert again.errors == failure.errors


def test_what_another_version_stored_keeps_its_words() -> None:
    again = run_state.failure_from_text(json.dumps(["OfAnotherVersion", [SENTENCE]]))
    assert (type(again), again.message) == (DovetailError, SENTENCE)
    assert errors.rebuild_error("InvalidInput", SENTENCE).message == SENTENCE
    assert errors.rebuild_error("TookTooLong").message
