"""The types of settings: URLs, addresses and names, each with its check."""

import re
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_uri

BROKER_DATABASE = 0
RESULTS_DATABASE = 2
SENTINEL_PORT = 26379
#: MongoDB's own databases. They hold users, sessions and the oplog, and no collections for joins.
INTERNAL_DATABASES = frozenset({"admin", "config", "local"})
#: The certificate parameters of a ``rediss://`` URL that both kombu and redis-py understand.
TLS_PARAMETERS = frozenset({"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
_UNREADABLE_FILE = "names a file that cannot be read, in tlsCAFile or tlsCertificateKeyFile"
_ESCAPE_HINT = "in a user name or password, each of / ? # @ : % is written percent-encoded"


# The messages of these validators must not quote the value, because it may hold a password.
def _checked_redis_url(url: str, database: int) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # validated on access
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ESCAPE_HINT}") from None
    if parts.scheme not in {"redis", "rediss"}:
        hint = "; Sentinels are named in REDIS_SENTINELS" if "sentinel" in parts.scheme else ""
        raise ValueError(f"must begin with redis:// or rediss://{hint}")
    if parts.path not in {"", "/", f"/{database}"} or parts.fragment:
        raise ValueError(
            "must end with the host or its port, because the databases are fixed: "
            f"{BROKER_DATABASE} for the queue, {RESULTS_DATABASE} for results; {_ESCAPE_HINT}"
        )
    allowed = TLS_PARAMETERS if parts.scheme == "rediss" else frozenset[str]()
    if unknown := dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - allowed:
        names = [name for name in sorted(unknown) if re.fullmatch("[a-z_]+", name)]
        raise ValueError(
            f"cannot hold {' and '.join(names) or 'these'} as parameters; only rediss:// takes any, "
            f"those of certificates: {', '.join(sorted(TLS_PARAMETERS))}; {_ESCAPE_HINT}"
        )
    return url


def _checked_mongodb_uri(uri: str) -> str:
    """Validates a connection string. Accepts a host without a scheme as well, as MONGODB_HOST often holds."""
    if "://" not in uri:
        uri = f"mongodb://{uri}"
    scheme, _, rest = uri.partition("://")
    if scheme not in {"mongodb", "mongodb+srv"}:
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    options = parse_qsl(rest.partition("?")[2], keep_blank_values=True)
    if any((name.lower(), value) == ("w", "0") for name, value in options):
        raise ValueError("cannot hold w=0: a write that MongoDB does not acknowledge may never have happened")
    if scheme == "mongodb":  # parsing mongodb+srv:// would query DNS
        try:
            parse_uri(uri)
        except (ConfigurationError, InvalidURI, ValueError):
            raise ValueError(f"is no connection string of MongoDB; {_ESCAPE_HINT}") from None
        except OSError:
            raise ValueError(_UNREADABLE_FILE) from None
    _require_usable_options(uri)
    return uri


def _require_usable_options(uri: str) -> None:
    """Checks the options of a connection string as the driver does for a client, which reads certificates."""
    try:
        # Without a connection the client starts no thread and queries no DNS.
        MongoClient[dict[str, Any]](uri, connect=False).close()
    except InvalidURI:
        raise ValueError(f"is no connection string of MongoDB; {_ESCAPE_HINT}") from None
    except OSError:
        raise ValueError(_UNREADABLE_FILE) from None
    except (ConfigurationError, ValueError, TypeError):
        raise ValueError(
            "holds options that MongoDB's driver refuses; see those of the login, certificates and read preference"
        ) from None


def _checked_database(name: str) -> str:
    if not 0 < len(name.encode()) < 64 or re.search(r'[/\\. "$\0]', name):  # noqa: PLR2004 - MongoDB's limit
        raise ValueError('is no name of a MongoDB database: 1 to 63 bytes, none of them a space or one of / \\ . " $')
    return name


def _checked_join_database(name: str) -> str:
    if name in INTERNAL_DATABASES:
        raise ValueError(f"cannot hold {name}, a database that MongoDB keeps for itself")
    return _checked_database(name)


def split_databases(names: str) -> frozenset[str]:
    """Splits a comma-separated list of database names."""
    return frozenset(filter(None, (name.strip() for name in names.split(","))))


def _checked_databases(names: str) -> str:
    for name in sorted(split_databases(names)):
        _checked_join_database(name)
    return names


def _checked_source_databases(names: str) -> str:
    if not split_databases(names):
        raise ValueError("must name at least one database")
    return _checked_databases(names)


def _checked_source_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,40}", name):
        raise ValueError("names of sources have 1 to 40 letters, digits and _")
    return name


def mongodb_hosts(uri: str) -> frozenset[str]:
    """The hosts of a valid connection string, each without the default port. Queries no DNS."""
    address = uri.partition("://")[2].partition("?")[0].partition("/")[0]
    return frozenset(host.lower().removesuffix(":27017") for host in address.rpartition("@")[2].split(","))


def parse_addresses(text: str) -> tuple[tuple[str, int], ...]:
    """Parses ``host:port,host:port`` into pairs of host and port.

    Raises:
        ValueError: the text has another form.
    """
    addresses = []
    for address in filter(None, (item.strip() for item in text.split(","))):
        try:
            parts = urlsplit(f"//{address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or re.search("[/?#@]", address):
            raise ValueError(
                "must be host:port,host:port,…; a password of the Sentinels goes into REDIS_SENTINEL_PASSWORD, "
                "user and password of Redis into REDIS_URL"
            )
        addresses.append((host, port or SENTINEL_PORT))
    if not addresses:
        raise ValueError("must name at least one Sentinel")
    return tuple(addresses)


def _checked_addresses(text: str) -> str:
    parse_addresses(text)
    return text


QueueUrl = Annotated[str, AfterValidator(partial(_checked_redis_url, database=BROKER_DATABASE))]
ResultsUrl = Annotated[str, AfterValidator(partial(_checked_redis_url, database=RESULTS_DATABASE))]
MongodbUri = Annotated[str, AfterValidator(_checked_mongodb_uri)]
DatabaseName = Annotated[str, AfterValidator(_checked_database)]
JoinDatabaseName = Annotated[str, AfterValidator(_checked_join_database)]
DatabaseNames = Annotated[str, AfterValidator(_checked_databases)]
Addresses = Annotated[str, AfterValidator(_checked_addresses)]
SourceName = Annotated[str, AfterValidator(_checked_source_name)]


class SourceSettings(BaseModel):
    """The variables of one further MongoDB deployment. The README's table of settings shows the descriptions."""

    model_config = ConfigDict(frozen=True)

    uri: MongodbUri = Field(
        repr=False,
        validation_alias="URI",
        description="A further MongoDB deployment whose collections can be joined, under a name of your choice: "
        "`SOURCE_CRM_URI` adds `crm`. Options of the URI set read preference, tags and certificates.",
    )
    databases: Annotated[str, AfterValidator(_checked_source_databases)] = Field(
        validation_alias="DATABASES",
        description="The databases of that deployment that joins may read, separated by commas.",
    )

    @property
    def open_databases(self) -> frozenset[str]:
        """The names of the databases that are open for joins."""
        return split_databases(self.databases)
