"""Expands lists: each element of a list makes a row of its own. Pure."""

from typing import Any

from worker_tasks.infra.connections import Document
from worker_tasks.joins.spec.spec import Expand


def expand(document: Document, expansion: Expand) -> list[Document]:
    """The rows that a document becomes, like ``$unwind``: each has one element in the place of the list.

    A value that is not a list stays. A document whose list is empty, null or missing is dropped unless the expansion
    keeps it; an empty list is then removed. Positions count from 1, and are null for values outside a list.
    """
    *parents, name = expansion.path.split(".")
    holder: Any = document
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, dict) else None
    value = holder.get(name) if isinstance(holder, dict) else None
    if value is None or value == []:
        if not expansion.keep_empty:
            return []
        kept = document if value is None else _replace(document, parents, name, [])
        return [_with_position(kept, expansion, None)]
    if not isinstance(value, list):
        return [_with_position(document, expansion, None)]
    return [
        _with_position(_replace(document, parents, name, [element]), expansion, position)
        for position, element in enumerate(value, start=1)
    ]


def _replace(document: Document, parents: list[str], name: str, element: list[Any]) -> Document:
    """A copy of the document with the field set to the one element, or removed if there is none."""
    copy = dict(document)
    if parents:
        copy[parents[0]] = _replace(document[parents[0]], parents[1:], name, element)
    elif element:
        copy[name] = element[0]
    else:
        del copy[name]
    return copy


def _with_position(document: Document, expansion: Expand, position: int | None) -> Document:
    return document if expansion.position is None else {**document, expansion.position: position}
