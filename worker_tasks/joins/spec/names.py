"""Rules for the names of sources, databases, collections and fields in a join."""

import re

MAX_PATH_LENGTH = 200
MAX_PARTS = 10
#: Prefix of the compiler's own field names.
OWN_PREFIX = "__dovetail"
#: The fields of a DBRef, the only names in a path that may begin with $.
DBREF_FIELDS = frozenset({"$ref", "$id", "$db"})
#: MongoDB's own databases, which no join reads.
SYSTEM_DATABASES = frozenset({"admin", "config", "local"})
#: A regular expression for the name of a source.
SOURCE_NAME = r"[a-z0-9_-]{1,40}"


def path_error(path: str) -> str | None:
    """The error in a dotted field path, or None if it is valid."""
    parts = path.split(".")
    if not all(parts):
        return "is no field path: it has an empty part."
    if len(path) > MAX_PATH_LENGTH or len(parts) > MAX_PARTS:
        return f"is too long: a field path has at most {MAX_PATH_LENGTH} characters and {MAX_PARTS} parts."
    if any(_is_operator(part, number) for number, part in enumerate(parts)) or "\0" in path:
        return "is no field path: a name must not begin with $ nor contain NUL."
    if any(part.startswith(OWN_PREFIX) or part == "__proto__" for part in parts):
        return "is a name that is not allowed here."
    try:
        path.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode."
    return None


def _is_operator(part: str, number: int) -> bool:
    return part.startswith("$") and not (number and part in DBREF_FIELDS)


def collection_error(name: str) -> str | None:
    """The error in the name of a collection or database, or None if it is valid."""
    if not name or len(name) > MAX_PATH_LENGTH:
        return f"must be the name of a collection, of at most {MAX_PATH_LENGTH} characters."
    if name.startswith("system.") or ".system." in name:
        return f"{name} is one of MongoDB's own collections, which are not open for joins."
    if re.search(r"[$\0]", name) or name.startswith("."):
        return "is no name of a collection."
    return None


def database_error(name: str) -> str | None:
    """The error in the name of a database, or None if it is valid."""
    if name in SYSTEM_DATABASES:
        return f"{name} is one of MongoDB's own databases, which are not open for joins."
    return collection_error(name)


def source_error(name: str) -> str | None:
    """The error in the name of a source, or None if it is valid."""
    if not re.fullmatch(SOURCE_NAME, name):
        return "is no name of a source: that has at most 40 small letters, digits, - and _."
    return None
