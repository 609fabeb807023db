"""The documents that the soak joins, and the expected results, computed in plain Python without Dovetail's code."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

Document = dict[str, Any]

DATABASE = "soak"
USERS, ORDERS = 200, 2_000
ITEMS, KEYS = 24_000, 1_000
#: Characters that JSON escapes, and multi-byte characters.
PADDING = 'é "two"\n\t\\ 漢字 😀 ' * 2


def _users() -> list[Document]:
    return [{"_id": f"u{number}", "name": f"User {number} {PADDING}"} for number in range(USERS)]


def _orders() -> list[Document]:
    # Every eighth order has no user, and the last users have no orders.
    owners = [f"u{number * 7 % (USERS - 20)}" if number % 8 else "nobody" for number in range(ORDERS)]
    return [{"_id": number, "userId": owner, "amount": number % 97} for number, owner in enumerate(owners)]


def _items() -> list[Document]:
    return [{"_id": number, "key": number * 31 % KEYS, "text": f"{number} {PADDING}"} for number in range(ITEMS)]


def _tags() -> list[Document]:
    # The key is in a list and has an index: by their sizes and shapes, some joins run as lookups, others as scans.
    return [{"_id": f"{key}.{count}", "key": [key], "count": count} for key in range(KEYS) for count in range(key % 4)]


@cache
def documents(collection: str) -> list[Document]:
    """Returns all documents of a collection, the same each time."""
    return {"users": _users, "orders": _orders, "items": _items, "tags": _tags}[collection]()


#: The indexed fields, besides ``_id``.
INDEXES = {"orders": "userId", "tags": "key"}
COLLECTIONS = ("users", "orders", "items", "tags")


@cache
def _by_key(collection: str, field: str) -> dict[Any, list[Document]]:
    found: dict[Any, list[Document]] = {}
    for document in documents(collection):
        value = document[field]
        for key in value if isinstance(value, list) else [value]:
            found.setdefault(key, []).append(document)
    return found


@dataclass(frozen=True)
class KnownJoin:
    """A join whose result is known: the documents of the left side with ``low <= _id < high``, and their matches.

    A join that is not ``divisible`` has a limit that it never reaches, so that it runs in one stream.
    """

    left: str
    local: str
    right: str
    foreign: str
    low: int
    high: int
    kind: str = "left"
    shape: str = "rows"
    divisible: bool = False

    def spec(self) -> Document:
        """Returns the join as JSON for the API."""
        on = [{"local": self.local, "foreign": self.foreign}]
        join: Document = {"from": self.right, "kind": self.kind, "on": on}
        if self.kind not in {"semi", "anti"}:
            join |= {"as": "found", "shape": self.shape}
        match = {"_id": {"$gte": self.low, "$lt": self.high}}
        spec = {"database": DATABASE, "from": self.left, "match": match, "joins": [join]}
        return spec if self.divisible else spec | {"limit": 10 * ITEMS}

    def rows(self) -> Iterable[Document]:
        """Yields every expected row, in no particular order."""
        matches = _by_key(self.right, self.foreign)
        for document in documents(self.left)[self.low : self.high]:
            yield from self._rows_of(document, matches.get(document[self.local], []))

    def _rows_of(self, document: Document, found: list[Document]) -> list[Document]:
        if self.kind in {"semi", "anti"}:
            return [document] if bool(found) == (self.kind == "semi") else []
        if self.kind == "inner" and not found:
            return []
        if self.shape == "array":
            return [{**document, "found": found}]
        if self.shape == "count":
            return [{**document, "found": len(found)}]
        return [{**document, "found": each} for each in found] or [document]


@dataclass(frozen=True)
class OrdersOf:
    """The join of one user with all their orders."""

    user_id: str

    def rows(self) -> Iterable[Document]:
        """Returns the user's row, or nothing if there is no such user."""
        orders = _by_key("orders", "userId").get(self.user_id, [])
        return [{**user, "orders": orders} for user in documents("users") if user["_id"] == self.user_id]


Answer = KnownJoin | OrdersOf


def canonical(row: Any) -> str:
    """Returns a row as text, independent of the order of its matches."""
    if isinstance(row, dict):
        row = {name: sorted(value, key=_by_id) if isinstance(value, list) else value for name, value in row.items()}
    return json.dumps(row, sort_keys=True)


def _by_id(document: Any) -> str:
    return str(document.get("_id")) if isinstance(document, dict) else str(document)


def _digest(rows: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for row in sorted(rows):
        digest.update(row.encode() + b"\n")
    return digest.hexdigest()


@lru_cache(maxsize=1_000)
def expected(answer: Answer) -> tuple[int, str]:
    """Returns the number of expected rows, and a digest of them."""
    rows = [canonical(row) for row in answer.rows()]
    return len(rows), _digest(rows)


@lru_cache(maxsize=4)
def all_rows(answer: Answer) -> Counter[str]:
    """The expected rows as text, with the number of times that each occurs."""
    return Counter(canonical(row) for row in answer.rows())


def recount(stored: bytes, count: Any, answer: Answer, *, partial: bool = False) -> list[str]:
    """Compares a stored result with the expected rows; returns an empty list if it is right.

    Args:
        stored: the value in Redis.
        count: the number of rows in the task document.
        partial: rows may be missing, because the join was stopped; none may be wrong.
    """
    if nuls := stored.count(b"\0"):
        return [f"{nuls:,} NUL bytes of {len(stored):,}, the first at {stored.index(bytes(1)):,}"]
    try:
        rows = json.loads(stored)
    except ValueError as error:
        return [f"not JSON: {str(error)[:200]}"]
    if not isinstance(rows, list):
        return [f"not a JSON array but {type(rows).__name__}"]
    errors = [] if count == len(rows) else [f"the count is {count}, but there are {len(rows)} rows"]
    found = [canonical(row) for row in rows]
    if not partial and (len(found), _digest(found)) == expected(answer):
        return errors
    actual_rows, expected_rows = Counter(found), all_rows(answer)
    missing, unexpected = expected_rows - actual_rows, actual_rows - expected_rows
    if unexpected or (missing and not partial):
        example = next(iter(unexpected or missing))[:200]
        counts = f"{missing.total()} missing, {unexpected.total()} too many"
        errors.append(f"{len(rows)} rows of {expected_rows.total()}: {counts}; such as {example}")
    return errors
