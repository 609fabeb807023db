"""Rules for the names of collections and fields in a join."""

import re

MAX_PATH_LENGTH = 200
MAX_PARTS = 10
#: Prefix of the compiler's own field names.
OWN_PREFIX = "__dovetail"


def path_error(path: str) -> str | None:
    """The error in a dotted field path, or None if it is valid."""
    parts = path.split(".")
    if not all(parts):
        return "is no field path: it has an empty part."
    if len(path) > MAX_PATH_LENGTH or len(parts) > MAX_PARTS:
        return f"is too long: a field path has at most {MAX_PATH_LENGTH} characters and {MAX_PARTS} parts."
    if any(part.startswith("$") for part in parts) or "\0" in path:
        return "is no field path: a name must not begin with $ nor contain NUL."
    if any(part.startswith(OWN_PREFIX) or part == "__proto__" for part in parts):
        return "is a name that is not allowed here."
    try:
        path.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode."
    return None


def collection_error(name: str) -> str | None:
    """The error in the name of a collection or database, or None if it is valid."""
    if not name or len(name) > MAX_PATH_LENGTH:
        return f"must be the name of a collection, of at most {MAX_PATH_LENGTH} characters."
    if name.startswith("system.") or ".system." in name:
        return f"{name} is one of MongoDB's own collections, which are not open for joins."
    if re.search(r"[$\0]", name) or name.startswith("."):
        return "is no name of a collection."
    return None
