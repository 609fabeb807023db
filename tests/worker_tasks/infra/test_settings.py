"""Valid environment variables, and the messages about invalid ones."""

import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import ValidationError
from redis.sentinel import SentinelConnectionPool

from tests.conftest import environment_variables
from worker_tasks.infra.connections import Connections, sentinel_options
from worker_tasks.infra.settings import Settings, SettingsError, settings
from worker_tasks.queue.celery_app import RecordingCelery, celery_settings

GOOD = {"REDIS_URL": "redis://cache", "MONGODB_URI": "mongodb://store"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment without settings; clears the settings cache before and after the test."""
    for name in environment_variables():
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def read(environment: pytest.MonkeyPatch, **variables: str) -> Settings:
    """The settings from these variables, with default URLs for servers that they leave out."""
    if not {"REDIS_URL", "CELERY_BROKER_URL"} & set(variables):
        variables["REDIS_URL"] = GOOD["REDIS_URL"]
    if not {"MONGODB_URI", "MONGODB_HOST"} & set(variables):
        variables["MONGODB_URI"] = GOOD["MONGODB_URI"]
    for name, value in variables.items():
        environment.setenv(name, value)
    return settings()


def test_the_queue_is_in_database_0_and_results_in_database_2(environment: pytest.MonkeyPatch) -> None:
    ours = read(environment, REDIS_URL="redis://:secret@cache:6380")
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
        ({"REDIS_URL": "redis://one/0", "RESULTS_REDIS_URL": "redis://three/2"}, "one", "three"),
        ({"REDIS_URL": "redis://one/", "RESULTS_REDIS_URL": "redis://three/"}, "one", "three"),
    ],
)
def test_redis_can_be_set_by_each_of_its_variables(
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
def test_mongodb_can_be_set_by_each_of_its_variables(
    environment: pytest.MonkeyPatch, variables: dict[str, str], uri: str
) -> None:
    assert read(environment, **variables).mongodb_uri == uri


def test_all_missing_variables_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL is not set.*MONGODB_URI is not set"):
        settings()


NO_DATABASE = "the databases are fixed: 0 for the queue, 2 for results"
NO_SUCH_NAME = "is no name of a MongoDB database"
NO_URI = "is no connection string of MongoDB"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("REDIS_URL", "amqp://cache", "must begin with redis:// or rediss://"),
        ("REDIS_URL", "cache:6379", "must begin with redis:// or rediss://"),
        (
            "REDIS_URL",
            "sentinel://cache",
            "must begin with redis:// or rediss://; Sentinels are named in REDIS_SENTINELS",
        ),
        ("REDIS_URL", "redis://cache:port", "its host or port cannot be read"),
        ("REDIS_URL", "redis://cache/3", NO_DATABASE),
        ("REDIS_URL", "redis://cache/2", NO_DATABASE),
        ("REDIS_URL", "redis://cache/notanumber", NO_DATABASE),
        ("REDIS_URL", "redis://cache?socket_timeout=5", "cannot hold socket_timeout as parameters"),
        ("REDIS_URL", "redis://cache?db=3&password=pw", "cannot hold db and password as parameters"),
        ("REDIS_URL", "redis://cache?ssl_ca_certs=/ca.pem", "cannot hold ssl_ca_certs as parameters"),
        ("REDIS_URL", "rediss://cache?health_check_interval=5", "cannot hold health_check_interval as parameters"),
        ("CELERY_BROKER_URL", "amqp://cache", "must begin with redis:// or rediss://"),
        ("CELERY_BROKER_URL", "redis://cache/1", NO_DATABASE),
        ("RESULTS_REDIS_URL", "http://cache", "must begin with redis:// or rediss://"),
        ("RESULTS_REDIS_URL", "redis://cache/0", NO_DATABASE),
        ("REDIS_SENTINELS", "one:port", "must be host:port,host:port"),
        ("REDIS_SENTINELS", "one:26379/mymaster", "must be host:port,host:port"),
        ("REDIS_SENTINELS", "sentinel://one:26379", "must be host:port,host:port"),
        ("REDIS_SENTINELS", " , ", "must name at least one Sentinel"),
        ("MONGODB_URI", "http://store", "must begin with mongodb:// or mongodb+srv://"),
        ("MONGODB_URI", "mongodb://store/?w=0", "cannot hold w=0"),
        ("MONGODB_URI", "mongodb+srv://store/tasks?retryWrites=true&W=0", "cannot hold w=0"),
        ("MONGODB_URI", "mongodb://me:p@ss@store", NO_URI),
        ("MONGODB_URI", "mongodb://store:port", NO_URI),
        ("MONGODB_HOST", "http://store", "must begin with mongodb:// or mongodb+srv://"),
        ("TASKS_DATABASE", "my tasks", NO_SUCH_NAME),
        ("TASKS_DATABASE", "a.b", NO_SUCH_NAME),
        ("JOIN_DATABASE", "x" * 64, NO_SUCH_NAME),
        ("JOIN_DATABASES", "shop, $flights", NO_SUCH_NAME),
        ("JOIN_DATABASES", "shop,local", "cannot hold local"),
        ("JOIN_DATABASE", "admin", "cannot hold admin"),
        ("RESULT_TTL_SECONDS", "0", "greater than or equal to 1"),
        ("MAX_ATTEMPTS", "many", "valid integer"),
        ("COOKIES_SECURE", "perhaps", "valid boolean"),
    ],
)
def test_an_invalid_variable_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        read(environment, **{variable: value})
    assert str(caught.value).startswith(f"{variable}: ")


def test_the_invalid_one_of_two_variables_is_named(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        read(environment, REDIS_URL="redis://good", CELERY_BROKER_URL="amqp://bad")
    assert "CELERY_BROKER_URL: " in str(caught.value)
    assert "REDIS_URL: " not in str(caught.value)


def test_an_invalid_variable_of_two_settings_is_named_once(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        read(environment, CELERY_BROKER_URL="amqp://bad")
    assert str(caught.value).count("CELERY_BROKER_URL: ") == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"REDIS_URL": "http://:hunter2@cache", "MONGODB_URI": "http://me:hunter2@store"},
        *(
            {"REDIS_URL": f"redis://:{password}@cache", "MONGODB_URI": f"mongodb://me:{password}@store"}
            for password in (
                "hunter2/more",
                "hunter2#more",
                "1#hunter2",
                "1?hunter2",
                "1/hunter2",
                "[hunter2",
                "hunter2:@",
            )
        ),
        {"REDIS_SENTINELS": "me:hunter2@one:26379"},
    ],
)
def test_an_error_message_contains_no_passwords(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(environment, **variables)
    assert "hunter2" not in str(caught.value)


CRM = {"SOURCE_CRM_URI": "mongodb://other", "SOURCE_CRM_DATABASES": "crm, sales"}


def test_each_source_has_a_name_a_uri_and_databases(environment: pytest.MonkeyPatch) -> None:
    logs = {"SOURCE_OLD_LOGS_2_URI": "third:27018", "SOURCE_OLD_LOGS_2_DATABASES": "logs"}
    sources = read(environment, **CRM, **logs).sources
    assert {name: (source.uri, sorted(source.open_databases)) for name, source in sources.items()} == {
        "crm": ("mongodb://other", ["crm", "sales"]),
        "old_logs_2": ("mongodb://third:27018", ["logs"]),
    }


def test_there_are_no_sources_by_default(environment: pytest.MonkeyPatch) -> None:
    assert read(environment, SOURCE_CRM_URI="", SOURCE_VERSION="1", SOURCES="x").sources == {}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SOURCE_CRM_DATABASES", "", "SOURCE_CRM_DATABASES is not set, but SOURCE_CRM_URI is"),
        ("SOURCE_CRM_URI", "", "SOURCE_CRM_URI is not set, but SOURCE_CRM_DATABASES is"),
        ("SOURCE_CRM_DATABASES", " , ", "SOURCE_CRM_DATABASES: Value error, must name at least one database"),
        ("SOURCE_CRM_DATABASES", "crm,a b", f"SOURCE_CRM_DATABASES: Value error, {NO_SUCH_NAME}"),
        ("SOURCE_CRM_DATABASES", "crm,admin", "SOURCE_CRM_DATABASES: Value error, cannot hold admin"),
        ("SOURCE_CRM_DATABASES", "config", "SOURCE_CRM_DATABASES: Value error, cannot hold config"),
        ("SOURCE_CRM_DATABASES", "local", "SOURCE_CRM_DATABASES: Value error, cannot hold local"),
        ("SOURCE_CRM_URI", "http://other", "SOURCE_CRM_URI: Value error, must begin with mongodb://"),
        ("SOURCE_CRM_URI", "mongodb://me:hunter2/more@other", f"SOURCE_CRM_URI: Value error, {NO_URI}"),
        (
            "SOURCE_CRM_URI",
            "mongodb://other/?tls=true&tlsCAFile=/nowhere.pem",
            "SOURCE_CRM_URI: Value error, names a file that cannot be read",
        ),
        (
            "SOURCE_CRM_URI",
            "mongodb+srv://me:hunter2@other/?tls=true&tlsCertificateKeyFile=/nowhere.pem",
            "SOURCE_CRM_URI: Value error, names a file that cannot be read",
        ),
        (
            "SOURCE_CRM_URI",
            "mongodb://me:hunter2@other/?readPreference=primary&readPreferenceTags=dc:ny",
            "SOURCE_CRM_URI: Value error, holds options that MongoDB's driver refuses",
        ),
        (
            "SOURCE_CRM_URI",
            "mongodb://other/?authMechanism=MONGODB-X509&authSource=crm",
            "SOURCE_CRM_URI: Value error, holds options that MongoDB's driver refuses",
        ),
        ("SOURCE_A-B_URI", "mongodb://other", "SOURCE_A-B_URI: Value error, names of sources have 1 to 40 letters"),
        (f"SOURCE_{'A' * 41}_URI", "mongodb://other", f"SOURCE_{'A' * 41}_URI: Value error, names of sources"),
    ],
)
def test_an_invalid_variable_of_a_source_is_named(
    environment: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}") as caught:
        read(environment, **CRM | {variable: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("uri", ["mongodb://me:hunter2@STORE/?tls=true", "mongodb://elsewhere,store:27017"])
def test_no_source_opens_the_database_of_the_task_documents(environment: pytest.MonkeyPatch, uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOURCE_CRM_DATABASES: cannot hold mine, the database of the task"):
        read(environment, TASKS_DATABASE="mine", SOURCE_CRM_URI=uri, SOURCE_CRM_DATABASES="crm,mine")


def test_another_deployment_may_have_a_database_of_the_same_name(environment: pytest.MonkeyPatch) -> None:
    sources = read(environment, SOURCE_CRM_URI="mongodb://other", SOURCE_CRM_DATABASES="tasks").sources
    assert sources["crm"].open_databases == {"tasks"}


def test_the_settings_show_no_uri_of_a_source(environment: pytest.MonkeyPatch) -> None:
    ours = read(environment, SOURCE_CRM_URI="mongodb://me:hunter2@other", SOURCE_CRM_DATABASES="crm")
    assert "hunter2" not in repr(ours)


def test_the_settings_are_frozen(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(environment).max_attempts = 3  # type: ignore[misc]


def test_the_environment_is_read_once(environment: pytest.MonkeyPatch) -> None:
    assert read(environment, MAX_ATTEMPTS="3") is read(environment, MAX_ATTEMPTS="4")


VERIFY = pytest.mark.parametrize(
    ("variables", "check"), [({}, ssl.CERT_REQUIRED), ({"REDIS_TLS_VERIFY": "false"}, ssl.CERT_NONE)]
)
#: The setting overrides the parameter in the URL.
TLS_URL = "rediss://cache:6380/0?ssl_cert_reqs=optional"


@VERIFY
def test_redis_py_checks_certificates_by_default(
    environment: pytest.MonkeyPatch, variables: dict[str, str], check: ssl.VerifyMode
) -> None:
    ours = read(environment, REDIS_URL=TLS_URL, **variables)
    for url in (ours.queue_url, ours.results_url):
        connection: Any = redis.ConnectionPool.from_url(url).make_connection()
        assert connection.cert_reqs == check


def celery_connection() -> Any:
    app = RecordingCelery("other", set_as_current=False)
    app.add_defaults(celery_settings)
    return app.connection_for_write()


@VERIFY
@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL"])
def test_kombu_checks_certificates_by_default(
    environment: pytest.MonkeyPatch, name: str, variables: dict[str, str], check: ssl.VerifyMode
) -> None:
    read(environment, **{name: TLS_URL}, **variables)
    with celery_connection() as connection:
        assert connection.ssl == {"ssl_cert_reqs": check}


def test_a_plain_connection_has_no_tls_options(environment: pytest.MonkeyPatch) -> None:
    assert "ssl" not in read(environment).queue_url + read(environment).kombu_broker_url


SENTINELS = "one:26380, two, [::1]:26381"


def test_sentinels_replace_the_redis_url(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MONGODB_URI", "mongodb://store")
    environment.setenv("REDIS_SENTINELS", SENTINELS)
    assert settings().sentinels == (("one", 26380), ("two", 26379), ("::1", 26381))
    assert settings().kombu_broker_url == "sentinel://one:26380/0;sentinel://two:26379/0;sentinel://[::1]:26381/0"


def test_user_and_password_come_from_the_url_with_sentinels(environment: pytest.MonkeyPatch) -> None:
    read(environment, REDIS_SENTINELS=SENTINELS, REDIS_URL="redis://me:a%3Bb%2Fc@ignored:1")
    clients = Connections(settings())
    for client, database in ((clients.queue, 0), (clients.results, 2), (clients.hints, 2)):
        options = client.connection_pool.connection_kwargs
        assert (options["username"], options["password"], options["db"]) == ("me", "a;b/c", database)
        assert isinstance(client.connection_pool, SentinelConnectionPool)
    clients.close()
    connection = celery_connection()
    assert (connection.userid, connection.password, connection.virtual_host) == ("me", "a;b/c", "0")
    assert connection.alt == [f"sentinel://me:a%3Bb%2Fc@{host}/0" for host in ("one:26380", "two:26379", "[::1]:26381")]
    assert "a%3Bb" not in connection.as_uri()


def test_results_can_have_a_separate_server_with_sentinels(environment: pytest.MonkeyPatch) -> None:
    read(environment, REDIS_SENTINELS=SENTINELS, RESULTS_REDIS_URL="redis://apart:1")
    clients = Connections(settings())
    assert isinstance(clients.queue.connection_pool, SentinelConnectionPool)
    for client in (clients.results, clients.hints):
        assert client.connection_pool.connection_kwargs["host"] == "apart"
    clients.close()


def test_sentinels_exclude_a_separate_broker_url(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_SENTINELS: .*cannot be set beside CELERY_BROKER_URL"):
        read(environment, REDIS_SENTINELS=SENTINELS, CELERY_BROKER_URL="redis://two")


@VERIFY
def test_redis_and_sentinels_share_the_certificate_check(
    environment: pytest.MonkeyPatch, variables: dict[str, str], check: ssl.VerifyMode
) -> None:
    read(environment, REDIS_SENTINELS=SENTINELS, REDIS_URL="rediss://:pw@x?ssl_ca_certs=/ca.pem", **variables)
    clients = [redis.Redis("one", 1, **sentinel_options(settings())), Connections(settings()).queue]
    for client in clients:
        connection: Any = client.connection_pool.make_connection()
        assert isinstance(connection, redis.SSLConnection)
        assert (connection.cert_reqs, connection.ca_certs) == (check, "/ca.pem")
    assert celery_connection().ssl == {"ssl_cert_reqs": check, "ssl_ca_certs": "/ca.pem"}
