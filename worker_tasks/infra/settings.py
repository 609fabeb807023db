"""The settings: environment variables, validated and read once into a frozen object."""

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker_tasks.infra.settings_types import (
    BROKER_DATABASE,
    RESULTS_DATABASE,
    Addresses,
    DatabaseName,
    DatabaseNames,
    JoinDatabaseName,
    MongodbUri,
    QueueUrl,
    ResultsUrl,
    SourceName,
    SourceSettings,
    mongodb_hosts,
    parse_addresses,
    split_databases,
)

#: Stands for the variables of all sources, which :func:`gather_sources` finds; no variable has this name itself.
SOURCES_ALIAS = "SOURCE_<NAME>"
_SOURCE_VARIABLE = re.compile(r"SOURCE_(?P<name>.+)_(?P<field>URI|DATABASES)", re.IGNORECASE)


class SettingsError(Exception):
    """Environment variables are missing or invalid; the message names each of them."""


class Settings(BaseSettings):
    """One field per environment variable. The README's table of settings shows the descriptions."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    redis_url: QueueUrl = Field(
        validation_alias=AliasChoices("REDIS_URL", "CELERY_BROKER_URL"),
        description="The Redis server, as `redis://` or `rediss://`. Queue in database 0, results in database 2.",
    )
    mongodb_uri: MongodbUri = Field(
        validation_alias=AliasChoices("MONGODB_URI", "MONGODB_HOST"),
        description="The MongoDB server or replica set that holds the task documents and the collections to join.",
    )
    broker_url: QueueUrl | None = Field(
        default=None,
        validation_alias="CELERY_BROKER_URL",
        description="The Redis server of the queue, if it is not `REDIS_URL`.",
    )
    results_redis_url: ResultsUrl | None = Field(
        default=None,
        validation_alias="RESULTS_REDIS_URL",
        description="The results' Redis, if it is not `REDIS_URL`. Results that fill it then never stop the queue.",
    )
    redis_tls_verify: bool = Field(
        default=True,
        validation_alias="REDIS_TLS_VERIFY",
        description="`false` accepts a `rediss://` server with a self-signed certificate, as some platforms use.",
    )
    redis_sentinels: Addresses | None = Field(
        default=None,
        validation_alias="REDIS_SENTINELS",
        description="Redis Sentinels, as `host:port,host:port`; queue and results follow the primary that they name. "
        "`REDIS_URL` may be left out: its user, password and `rediss://` are used, its host is ignored.",
    )
    redis_sentinel_master: str = Field(
        default="mymaster",
        min_length=1,
        validation_alias="REDIS_SENTINEL_MASTER",
        description="The Sentinels' name for the primary.",
    )
    redis_sentinel_password: SecretStr | None = Field(
        default=None,
        validation_alias="REDIS_SENTINEL_PASSWORD",
        description="The Sentinels' own password, if they require one.",
    )
    tasks_database: DatabaseName = Field(
        default="tasks",
        validation_alias="TASKS_DATABASE",
        description="The MongoDB database that holds the task documents, in the collection `task_results`.",
    )
    join_database: JoinDatabaseName = Field(
        default="shop",
        validation_alias="JOIN_DATABASE",
        description="The MongoDB database that holds `users` and `orders`.",
    )
    join_databases: DatabaseNames = Field(
        default="shop,flights",
        validation_alias="JOIN_DATABASES",
        description="The MongoDB databases that joins may read, separated by commas.",
    )
    sources: Mapping[SourceName, SourceSettings] = Field(default_factory=dict, validation_alias=SOURCES_ALIAS)
    part_documents: int = Field(
        default=25_000,
        ge=1,
        validation_alias="PART_DOCUMENTS",
        description="The number of documents in one part of a large join. Parts run on all workers at once.",
    )
    result_max_rows: int = Field(
        default=10_000_000,
        ge=1,
        validation_alias="RESULT_MAX_ROWS",
        description="The largest number of rows in a result. A join that exceeds it keeps a partial result.",
    )
    result_max_mib: int = Field(
        default=256,
        ge=1,
        le=511,
        validation_alias="RESULT_MAX_MIB",
        description="The largest size of a result, in MiB. One Redis value holds at most 512.",
    )
    result_ttl_seconds: int = Field(
        default=300,
        ge=1,
        validation_alias="RESULT_TTL_SECONDS",
        description="How long joined documents stay in Redis, in seconds.",
    )
    result_keep_seconds: int = Field(
        default=86_400,
        ge=1,
        validation_alias="RESULT_KEEP_SECONDS",
        description="The longest time that a result can be kept on request, in seconds from when it was joined.",
    )
    task_retention_days: int = Field(
        default=365,
        ge=1,
        validation_alias="TASK_RETENTION_DAYS",
        description="How long task documents stay in MongoDB, in days.",
    )
    long_task_seconds: float = Field(
        default=30,
        ge=0,
        validation_alias="LONG_TASK_SECONDS",
        description="How long the practice task takes, in seconds.",
    )
    join_seconds: float = Field(
        default=300,
        gt=0,
        validation_alias="JOIN_SECONDS",
        description="How long one join may take in MongoDB, in seconds.",
    )
    reading_seconds: float = Field(
        default=120,
        gt=0,
        validation_alias="READING_SECONDS",
        description="How long a worker may take to sort, measure, compare or export a result, in seconds.",
    )
    reading_memory_mib: int = Field(
        default=256,
        ge=64,
        validation_alias="READING_MEMORY_MIB",
        description="How much memory that may take, in MiB, before it spills to disk.",
    )
    max_attempts: int = Field(
        default=10,
        ge=1,
        validation_alias="MAX_ATTEMPTS",
        description="How many times in a row a task may crash its worker process before it fails.",
    )
    visibility_timeout_seconds: int = Field(
        default=60,
        ge=6,
        validation_alias="VISIBILITY_TIMEOUT_SECONDS",
        description="How long after a worker's death another one takes over its tasks, in seconds.",
    )
    reconcile_seconds: int = Field(
        default=30,
        ge=1,
        validation_alias="RECONCILE_SECONDS",
        description="How often workers look for waiting tasks whose message was lost, in seconds.",
    )
    worker_soft_shutdown_seconds: float = Field(
        default=20,
        ge=0,
        validation_alias="WORKER_SOFT_SHUTDOWN_SECONDS",
        description="How long a stopping worker waits for tasks, in seconds; less than the platform's grace period.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        validation_alias="SECRET_KEY",
        description="Signs the forms. Any long random text; all web processes must share the same value.",
    )
    cookies_secure: bool = Field(
        default=True,
        validation_alias="COOKIES_SECURE",
        description="`false` lets the form cookie travel over plain HTTP.",
    )

    @property
    def open_databases(self) -> frozenset[str]:
        """The names of the databases that are open for joins, never including the tasks database."""
        return split_databases(self.join_databases) - {self.tasks_database}

    @model_validator(mode="before")
    @classmethod
    def _default_redis_url_with_sentinels(cls, variables: dict[str, Any]) -> dict[str, Any]:
        return {"REDIS_URL": "redis://", **variables} if variables.get("REDIS_SENTINELS") else variables

    @model_validator(mode="before")
    @classmethod
    def _gather_sources(cls, variables: dict[str, Any]) -> dict[str, Any]:
        return {SOURCES_ALIAS: gather_sources(os.environ), **variables}

    @field_validator("sources")
    @classmethod
    def _keep_task_documents_closed(
        cls, sources: Mapping[str, SourceSettings], info: ValidationInfo
    ) -> Mapping[str, SourceSettings]:
        tasks_database, hosts = info.data.get("tasks_database"), mongodb_hosts(info.data.get("mongodb_uri", ""))
        for name, source in sources.items():
            if tasks_database in source.open_databases and mongodb_hosts(source.uri) & hosts:
                message = "{variable}: cannot hold {database}, the database of the task documents"
                context = {"variable": source_variable(name, "DATABASES"), "database": tasks_database}
                raise PydanticCustomError("tasks_database", message, context)
        return sources

    @field_validator("redis_sentinels")
    @classmethod
    def _reject_broker_url_with_sentinels(cls, sentinels: str | None, info: ValidationInfo) -> str | None:
        if sentinels and info.data.get("broker_url"):
            raise ValueError("cannot be set beside CELERY_BROKER_URL; user and password of Redis go into REDIS_URL")
        return sentinels

    @property
    def sentinels(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each Sentinel; empty without Sentinels."""
        return parse_addresses(self.redis_sentinels) if self.redis_sentinels else ()

    @property
    def kombu_broker_url(self) -> str:
        """The queue's URL for Celery; with Sentinels, one URL per Sentinel, separated by semicolons."""
        verify = "CERT_REQUIRED" if self.redis_tls_verify else "CERT_NONE"
        url = _redis_url_with(self.broker_url or self.redis_url, BROKER_DATABASE, verify)
        return ";".join(_sentinel_url(url, *address) for address in self.sentinels) or url

    @property
    def queue_url(self) -> str:
        """The queue's URL for redis-py. With Sentinels its host does not count."""
        verify = "required" if self.redis_tls_verify else "none"
        return _redis_url_with(self.broker_url or self.redis_url, BROKER_DATABASE, verify)

    @property
    def results_url(self) -> str:
        """The results' URL for redis-py. With Sentinels its host does not count, unless RESULTS_REDIS_URL is set."""
        verify = "required" if self.redis_tls_verify else "none"
        return _redis_url_with(self.results_redis_url or self.redis_url, RESULTS_DATABASE, verify)


def _redis_url_with(url: str, database: int, tls_verify: str) -> str:
    """Sets the database of a URL, and for TLS the parameter of the certificate check.

    Neither kombu nor redis-py reliably checks certificates without the parameter, and each accepts only its own
    spelling of the value.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "rediss":
        query["ssl_cert_reqs"] = tls_verify
    return urlunsplit(parts._replace(path=f"/{database}", query=urlencode(query)))


def _sentinel_url(url: str, host: str, port: int) -> str:
    """Replaces a URL's scheme and host with those of a Sentinel. Encodes semicolons, which separate kombu's URLs."""
    parts = urlsplit(url)
    user, password = (quote(unquote(value or ""), safe="") for value in (parts.username, parts.password))
    login = f"{user}:{password}@" if user or password else ""
    host = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(scheme="sentinel", netloc=f"{login}{host}:{port}"))


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: variables are missing or invalid; names all of them.
    """
    try:
        return Settings()
    except ValidationError as error:
        # Two fields may read the same variable; report it once.
        raise SettingsError("; ".join(dict.fromkeys(_message(dict(detail)) for detail in error.errors()))) from None


def gather_sources(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The variables of each source by its name, as ``{"crm": {"URI": …, "DATABASES": …}}``. Empty ones do not count."""
    found: dict[str, dict[str, str]] = {}
    for variable, value in environment.items():
        if value and (match := _SOURCE_VARIABLE.fullmatch(variable)):
            found.setdefault(match["name"].lower(), {})[match["field"].upper()] = value
    return found


def source_variable(name: str, field: str) -> str:
    """The variable that holds the ``URI`` or the ``DATABASES`` of a source."""
    return f"SOURCE_{name.upper()}_{field}"


def _message(detail: dict[str, Any]) -> str:
    if detail["loc"][0] == SOURCES_ALIAS:
        return _source_message(detail)
    variable = _alias_in_use(str(detail["loc"][0]))
    if detail["type"] == "missing":
        return f"{variable} is not set; `bin/dev env` prints it for a running bin/dev"
    return f"{variable}: {detail['msg']}"


def _source_message(detail: dict[str, Any]) -> str:
    """The message about a source's variable. An error about several names its variable itself."""
    if len(detail["loc"]) == 1:
        return str(detail["msg"])
    _, name, field = detail["loc"]
    variable = source_variable(name, "URI" if field == "[key]" else field)
    if detail["type"] == "missing":
        other = source_variable(name, "URI" if field == "DATABASES" else "DATABASES")
        return f"{variable} is not set, but {other} is"
    return f"{variable}: {detail['msg']}"


def _alias_in_use(variable: str) -> str:
    """The name under which the variable is set; its first name if it is not set."""
    for field in Settings.model_fields.values():
        names = getattr(field.validation_alias, "choices", [])
        if variable in names[:1]:
            return next((str(name) for name in names if os.environ.get(str(name))), variable)
    return variable
