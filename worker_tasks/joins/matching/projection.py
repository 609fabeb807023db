"""Keeps some fields of a document, exactly like ``$project``."""

from collections.abc import Callable, Mapping
from typing import Any

from worker_tasks.joins.matching.paths import MISSING, as_document

#: The fields to keep by name, with those to keep inside them; no names inside means the whole field.
Tree = dict[str, "Tree"]


def project(document: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    """The document with only these fields, in its own order; ``_id`` only if it is among them."""
    return projector(fields)(document)


def projector(fields: list[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """``project`` for these fields."""
    tree = _tree(fields)
    if any(tree.values()):
        return lambda document: _kept(document, tree)
    return lambda document: {name: value for name, value in document.items() if name in tree}


def value_projector(fields: list[str] | None) -> Callable[[Any], Any]:
    """``project`` for values inside a list: returns MISSING for those that it drops. None keeps everything."""
    if fields is None:
        return lambda value: value
    tree = _tree(fields)
    return lambda value: _kept_inside(value, tree)


def _tree(fields: list[str]) -> Tree:
    tree: Tree = {}
    for field in fields:
        # A whole field contains all fields inside it.
        if not any(field.startswith(f"{other}.") for other in fields):
            level = tree
            for name in field.split("."):
                level = level.setdefault(name, {})
    return tree


def _kept(document: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    kept = {}
    for name, value in document.items():
        inner = tree.get(name)
        if inner is not None and (part := _kept_inside(value, inner) if inner else value) is not MISSING:
            kept[name] = part
    return kept


def _kept_inside(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        parts = [_kept_inside(element, tree) for element in value]
        return [part for part in parts if part is not MISSING]
    document = as_document(value)
    return MISSING if document is None else _kept(document, tree)
