"""Converts raw BSON batches to lines of relaxed Extended JSON v2, one slice of a batch at a time.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from worker_tasks.joins.spec.extended_json import finite, to_fields, to_lines
from worker_tasks.results.summaries import Unmatched

#: BSON bytes decoded at once. The decoded documents take about ten times as much memory.
SLICE_BYTES = 512 * 1024

_LENGTH = struct.Struct("<i")
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
# Infinity and every NaN have an exponent whose bits are all ones: the seventh byte of the double is 0xF0 or more, and
# the eighth is 0x7F or 0xFF. The translation of a byte says in which of these places it can stand.
_PLACES = bytes(
    ord("c") if byte == 0xFF else ord("b") if byte == 0x7F else ord("a") if byte >= 0xF0 else 0  # noqa: PLR2004
    for byte in range(256)
)
_EXPONENTS = (b"ab", b"ac", b"cb", b"cc")
_BYTES_BEFORE_EXPONENT = 6
_DOUBLE = b"\x01"
#: The number of exponents to look at. A slice with more may hold such a number: it is only encoded more slowly.
MAX_EXPONENTS = 100_000


class LineEncoder:
    """Encodes documents as JSON, one per line.

    Args:
        columns: collects the names of the documents' fields in the order of their first appearance.
        unmatched: collects the rows in which a join found no match, by the field that the join adds.
    """

    def __init__(self, columns: dict[str, None], unmatched: dict[str, Unmatched] | None = None) -> None:
        self.columns = columns
        self.unmatched = {} if unmatched is None else unmatched
        self._unmatched_in_slice: dict[str, list[int]] = {}
        self._encoded = 0

    def encode(self, batch: bytes) -> Iterator[list[bytes]]:
        """Yields the lines of a batch of concatenated BSON documents, slice by slice."""
        for documents, non_finite in decode_slices(batch):
            note_fields(documents, self.columns)
            for name in self.unmatched:
                rows = enumerate(documents, start=self._encoded)
                # No match means: the field is missing, an empty list, or a count of 0. An empty document is a
                # match whose fields were all dropped.
                self._unmatched_in_slice[name] = [
                    row for row, document in rows if not (match := document.get(name)) and match != {}
                ]
            self._encoded += len(documents)
            yield encode_documents(documents, non_finite=non_finite)

    def note_unmatched(self, written: int) -> None:
        """Records the unmatched rows of the latest slice, but only those among the first ``written`` rows."""
        for name, rows in self._unmatched_in_slice.items():
            self.unmatched[name].add([row for row in rows if row < written])
        self._unmatched_in_slice = {}


def decode_slices(batch: bytes) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Yields the documents of a batch of concatenated BSON, slice by slice, and whether some numbers may not be finite.

    Texts that are not valid UTF-8 get replacement characters.
    """
    for piece in _slices(batch):
        with _collector_paused():
            documents = bson.decode_all(piece, _CODEC)
        yield documents, may_hold_non_finite(piece)


def may_hold_non_finite(piece: bytes) -> bool:
    """Whether BSON may contain an infinite number or NaN. False only if it contains none."""
    places = piece.translate(_PLACES)
    seen = 0
    for exponent in _EXPONENTS:
        found = places.find(exponent)
        while found >= 0:
            seen += 1
            if seen > MAX_EXPONENTS or _follows_name_of_double(piece, found - _BYTES_BEFORE_EXPONENT):
                return True
            found = places.find(exponent, found + 1)
    return False


def _follows_name_of_double(piece: bytes, start: int) -> bool:
    """Whether the bytes from ``start`` on may be the value of a double: its type and its name come before."""
    end_of_name = start - 1
    if end_of_name < 0 or piece[end_of_name]:
        return False
    # Neither the type nor the name contains a zero byte.
    return _DOUBLE in piece[piece.rfind(b"\0", 0, end_of_name) + 1 : end_of_name]


def encode_documents(documents: list[Any], *, non_finite: bool) -> list[bytes]:
    """Each document as one line of JSON. With ``non_finite``, takes longer and writes infinite numbers and NaN."""
    with _collector_paused():
        return to_lines([finite(document) for document in documents] if non_finite else documents)


def encode_fields(documents: list[dict[str, Any]], *, non_finite: bool) -> list[bytes]:
    """The fields of each document as JSON, without the braces around them; as :func:`encode_documents`."""
    with _collector_paused():
        return to_fields([finite(document) for document in documents] if non_finite else documents)


def note_fields(documents: list[dict[str, Any]], fields: dict[str, None]) -> None:
    """Adds the names of all top-level fields in the order of their first appearance."""
    for document in documents:
        if not document.keys() <= fields.keys():
            fields.update(dict.fromkeys(document))


def _slices(batch: bytes) -> Iterator[bytes]:
    """Cuts a batch between documents, using the length at the start of each one."""
    start = end = 0
    while end < len(batch):
        end += _LENGTH.unpack_from(batch, end)[0]
        if end - start >= SLICE_BYTES:
            yield batch[start:end]
            start = end
    if start < end:
        yield batch[start:end]


@contextmanager
def _collector_paused() -> Iterator[None]:
    # Decoding creates many objects and no cycles. Searching them for cycles would take as long as the decoding.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
