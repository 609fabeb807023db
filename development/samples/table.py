"""What a sample is made of: collections, their documents and their indexes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pymongo import IndexModel

Document = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One collection of a sample; `documents` makes them anew at each call."""

    name: str
    documents: Callable[[], Iterable[Document]]
    indexes: list[IndexModel] = field(default_factory=list)
