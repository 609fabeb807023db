"""What the environment may hold, and what is said of what it may not."""

import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from tests.conftest import environment_variables
from worker_tasks.celery_app import RecordingCelery, celery_settings
from worker_tasks.settings import Settings, SettingsError, settings

GOOD = {"REDIS_URL": "redis://cache", "MONGODB_URI": "mongodb://store"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that says nothing; what the settings read from it is forgotten in the end."""
    for name in environment_variables():
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def read(environment: pytest.MonkeyPatch, **variables: str) -> Settings:
    """The settings from these variables, and good ones where nothing is said of a server."""
    if not {"REDIS_URL", "CELERY_BROKER_URL"} & set(variables):
        variables["REDIS_URL"] = GOOD["REDIS_URL"]
    if not {"MONGODB_URI", "MONGODB_HOST"} & set(variables):
        variables["MONGODB_URI"] = GOOD["MONGODB_URI"]
    for name, value in variables.items():
        environment.setenv(name, value)
    return settings()


def test_the_queue_is_in_database_0_and_results_in_database_2(environment: pytest.MonkeyPatch) -> None:
    ours = read(environment, REDIS_URL="redis://:secret@cache:6380/7")
    assert ours.queue_url == ours.kombu_broker_url == "redis://:secret@cache:6380/0"
    assert ours.results_url == "redis://:secret@cache:6380/2"


@pytest.mark.parametrize(
    ("variables", "queue", "results"),
    [
        ({"REDIS_URL": "redis://one"}, "one", "one"),
        ({"CELERY_BROKER_URL": "redis://two"}, "two", "two"),
        ({"REDIS_URL": "", "CELERY_BROKER_URL": "redis://two"}, "two", "two"),
        ({"REDIS_URL": "redis://one", "CELERY_BROKER_URL": "redis://two"}, "two", "one"),
        ({"REDIS_URL": "redis://one", "RESULTS_REDIS_URL": "redis://three"}, "one", "three"),
    ],
)
def test_redis_is_understood_by_each_of_its_names(
    environment: pytest.MonkeyPatch, variables: dict[str, str], queue: str, results: str
) -> None:
    ours = read(environment, **variables)
    assert (ours.queue_url, ours.results_url) == (f"redis://{queue}/0", f"redis://{results}/2")


@pytest.mark.parametrize(
    ("variables", "uri"),
    [
        ({"MONGODB_URI": "mongodb://one:27018/?replicaSet=rs0"}, "mongodb://one:27018/?replicaSet=rs0"),
        ({"MONGODB_URI": "mongodb://one:27017,two:27018/tasks"}, "mongodb://one:27017,two:27018/tasks"),
        ({"MONGODB_URI": "mongodb+srv://one"}, "mongodb+srv://one"),
        ({"MONGODB_HOST": "mongodb://two"}, "mongodb://two"),
        ({"MONGODB_HOST": "two"}, "mongodb://two"),
        ({"MONGODB_HOST": "two:27018"}, "mongodb://two:27018"),
        ({"MONGODB_HOST": "two:27017,three:27018/?replicaSet=rs0"}, "mongodb://two:27017,three:27018/?replicaSet=rs0"),
        ({"MONGODB_URI": "mongodb://one", "MONGODB_HOST": "two"}, "mongodb://one"),
    ],
)
def test_mongodb_is_understood_by_each_of_its_names(
    environment: pytest.MonkeyPatch, variables: dict[str, str], uri: str
) -> None:
    assert read(environment, **variables).mongodb_uri == uri


def test_what_is_missing_is_named_all_at_once(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL is not set.*MONGODB_URI is not set"):
        settings()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("REDIS_URL", "amqp://cache", "must begin with redis:// or rediss://"),
        ("REDIS_URL", "cache:6379", "must begin with redis:// or rediss://"),
        ("CELERY_BROKER_URL", "amqp://cache", "must begin with redis:// or rediss://"),
        ("RESULTS_REDIS_URL", "http://cache", "must begin with redis:// or rediss://"),
        ("MONGODB_URI", "http://store", "must begin with mongodb:// or mongodb+srv://"),
        ("MONGODB_HOST", "http://store", "must begin with mongodb:// or mongodb+srv://"),
        ("RESULT_TTL_SECONDS", "0", "greater than or equal to 1"),
        ("MAX_ATTEMPTS", "many", "valid integer"),
        ("COOKIES_SECURE", "perhaps", "valid boolean"),
    ],
)
def test_what_can_not_be_used_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        read(environment, **{variable: value})
    assert variable in str(caught.value)


def test_a_complaint_tells_no_secrets(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        read(environment, REDIS_URL="http://:hunter2@cache", MONGODB_URI="http://me:hunter2@store")
    assert "hunter2" not in str(caught.value)


def test_the_settings_can_not_be_changed(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(environment).max_attempts = 3  # type: ignore[misc]


def test_the_settings_are_read_once(environment: pytest.MonkeyPatch) -> None:
    assert read(environment, MAX_ATTEMPTS="3") is read(environment, MAX_ATTEMPTS="4")


VERIFY = pytest.mark.parametrize(
    ("variables", "check"), [({}, ssl.CERT_REQUIRED), ({"REDIS_TLS_VERIFY": "false"}, ssl.CERT_NONE)]
)
#: Whatever a URL says itself is not relied on.
TLS_URL = "rediss://cache:6380/5?ssl_cert_reqs=optional"


@VERIFY
def test_redis_py_checks_the_certificate_unless_told_otherwise(
    environment: pytest.MonkeyPatch, variables: dict[str, str], check: ssl.VerifyMode
) -> None:
    ours = read(environment, REDIS_URL=TLS_URL, **variables)
    for url in (ours.queue_url, ours.results_url):
        connection: Any = redis.ConnectionPool.from_url(url).make_connection()
        assert connection.cert_reqs == check


@VERIFY
def test_kombu_checks_the_certificate_unless_told_otherwise(
    environment: pytest.MonkeyPatch, variables: dict[str, str], check: ssl.VerifyMode
) -> None:
    read(environment, REDIS_URL=TLS_URL, **variables)
    app = RecordingCelery("other", set_as_current=False)
    app.add_defaults(celery_settings)
    with app.connection_for_write() as connection:
        assert connection.ssl == {"ssl_cert_reqs": check}


def test_a_plain_connection_has_no_certificate_to_check(environment: pytest.MonkeyPatch) -> None:
    assert "ssl" not in read(environment).queue_url + read(environment).kombu_broker_url
