"""Read: a whole result as a file, streamed from Redis in constant memory."""

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response

from worker_tasks import results
from worker_tasks.results import SEPARATOR, ResultGone, Summary

#: What a spreadsheet takes for the beginning of a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r"^[=+\-@\t\r]")
NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")

logger = logging.getLogger(__name__)


def as_json(summary: Summary) -> Response:
    """The value as it is in Redis."""
    response = _file(summary, results.read_all(summary), "application/json", "json")
    response.content_length = summary.bytes
    return response


def as_ndjson(summary: Summary) -> Response:
    """One document a line."""
    lines = (line + b"\n" for line in lines_of(summary))
    return _file(summary, _joined(lines), "application/x-ndjson", "ndjson")


def as_csv(summary: Summary) -> Response:
    """RFC 4180: nested fields under dotted names, lists as JSON, what a spreadsheet would run made text."""
    return _file(summary, _csv(summary), "text/csv; charset=utf-8", "csv")


FORMATS: dict[str, Callable[[Summary], Response]] = {"json": as_json, "ndjson": as_ndjson, "csv": as_csv}


def _file(summary: Summary, chunks: Iterator[bytes], content_type: str, extension: str) -> Response:
    response = Response(_watched(chunks, summary), content_type=content_type)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", summary.key)
    partial = "" if summary.complete else ".partial"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}{partial}.{extension}"'
    return response


def _watched(chunks: Iterator[bytes], summary: Summary) -> Iterator[bytes]:
    """Breaks off where the result goes away: the connection is cut, so that nobody takes a part for the whole."""
    try:
        yield from chunks
    except ResultGone:
        logger.warning("the result %s went away while it was read", summary.key)
        raise


def lines_of(summary: Summary) -> Iterator[bytes]:
    """The documents, each as the line that was written.

    Raises:
        ResultGone: the result expired or was replaced meanwhile.
    """
    if not summary.count:
        return
    held = b""
    first = True
    for chunk in results.read_all(summary):
        held += chunk[1:] if first else chunk
        first = False
        *whole, held = held.split(SEPARATOR)
        yield from whole
    yield held.removesuffix(b"]")


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Fewer, larger pieces."""
    held = bytearray()
    for line in lines:
        held += line
        if len(held) >= results.CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _csv(summary: Summary) -> Iterator[bytes]:
    # All names first, from a reading of their own: the last document may have a field that no other has.
    columns: dict[str, None] = {}
    for row in _flat_rows(summary):
        if not row.keys() <= columns.keys():
            columns.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_harmless(column) for column in columns])
    for row in _flat_rows(summary):
        writer.writerow([_harmless(row.get(column, "")) for column in columns])
        if text.tell() >= results.CHUNK_BYTES:
            yield _taken(text)
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    written = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return written


def _flat_rows(summary: Summary) -> Iterator[dict[str, str]]:
    for line in lines_of(summary):
        # Numbers as they are written: no digit is lost on the way through a float.
        yield dict(_flat("", json.loads(line, parse_float=Exact, parse_int=Exact)))


class Exact(str):
    """A number, by its digits."""

    __slots__ = ()


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        scalar = plain_scalar(value)
        if scalar is not None:
            yield name, scalar
        elif value or not name:
            for inner, within in value.items():
                yield from _flat(f"{name}.{inner}" if name else inner, within)
        else:
            yield name, "{}"
    elif isinstance(value, list):
        yield name, _as_json(value)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    else:
        yield name, "" if value is None else str(value)


def plain_scalar(value: dict[str, Any]) -> str | None:
    """The text of a value that Extended JSON writes as an object with one key; None where it is a document."""
    if len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    if kind == "$date" and isinstance(inner, dict):
        return inner.get("$numberLong")
    if kind in {"$oid", "$date", "$numberDecimal", "$numberLong", "$numberDouble", "$uuid", "$symbol"}:
        return str(inner)
    return None


def _as_json(value: Any) -> str:
    """A list as JSON again, its numbers by their digits."""
    if isinstance(value, Exact):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_as_json, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{_as_json(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _harmless(cell: str) -> str:
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell
