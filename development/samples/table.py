"""The parts of a sample: collections with their documents and indexes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pymongo import IndexModel

Document = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One collection of a sample; each call of `documents` generates them again."""

    name: str
    documents: Callable[[], Iterable[Document]]
    indexes: list[IndexModel] = field(default_factory=list)
