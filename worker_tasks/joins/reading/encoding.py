"""Converts raw BSON batches to lines of relaxed Extended JSON v2, one slice of a batch at a time.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

import bson
import orjson
from bson import ObjectId, json_util
from bson.codec_options import CodecOptions, DatetimeConversion

from worker_tasks.results.summaries import Unmatched

#: BSON bytes decoded at once. The decoded documents take about ten times as much memory.
SLICE_BYTES = 512 * 1024

_LENGTH = struct.Struct("<i")
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_ORJSON = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
#: A value between two documents that are encoded together. JSON has no line breaks inside texts.
_BREAK = orjson.Fragment(b"\n")
#: Dates whose JSON is kept, because many documents share them.
_KEPT_DATES = 4096
# BSON's bytes of Infinity, -Infinity, NaN and -NaN, which plain JSON, and therefore orjson, cannot express.
_NON_FINITE = tuple(struct.pack("<Q", bits << 48) for bits in (0x7FF0, 0xFFF0, 0x7FF8, 0xFFF8))
#: The last bytes of these are rarer than the zeros before them, so that searching for them first is faster.
_NON_FINITE_ENDS = tuple((pattern[-2:], pattern) for pattern in _NON_FINITE)


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
        yield documents, any(end in piece and pattern in piece for end, pattern in _NON_FINITE_ENDS)


def encode_documents(documents: list[Any], *, non_finite: bool) -> list[bytes]:
    """Each document as one line of JSON. With ``non_finite``, takes longer and writes infinite numbers and NaN."""
    if non_finite or not documents:
        return [_encode_slowly(document) for document in documents]
    return _encode_together(documents)[1:-1].split(b",\n,")


def encode_fields(documents: list[dict[str, Any]], *, non_finite: bool) -> list[bytes]:
    """The fields of each document as JSON, without the braces around them; as :func:`encode_documents`."""
    if non_finite or not documents:
        return [_encode_slowly(document)[1:-1] for document in documents]
    return _encode_together(documents)[2:-2].split(b"},\n,{")


def _encode_together(documents: list[Any]) -> bytes:
    """A list of the documents with breaks between them. This is several times faster than a call for each document."""
    parts: list[Any] = [_BREAK] * (2 * len(documents) - 1)
    parts[::2] = documents
    with _collector_paused():
        return orjson.dumps(parts, _extended, _ORJSON)


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


def _extended(value: Any) -> Any:
    """Returns a value of a BSON type as relaxed Extended JSON."""
    # The most frequent types first: json_util takes five times as long.
    if isinstance(value, ObjectId):
        return {"$oid": value.binary.hex()}
    if isinstance(value, datetime) and value.year >= 1970:  # noqa: PLR2004 - earlier dates are not written as text
        return _date(value)
    return json_util.default(value, json_util.RELAXED_JSON_OPTIONS)


@lru_cache(_KEPT_DATES)
def _date(value: datetime) -> orjson.Fragment:
    # Five times faster than json_util. Datetimes are in UTC here, with whole milliseconds and a year up to 9999.
    text = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    return orjson.Fragment(f'{{"$date":"{text}Z"}}')


def _encode_slowly(document: Any) -> bytes:
    options = json_util.RELAXED_JSON_OPTIONS
    return json_util.dumps(document, json_options=options, ensure_ascii=False, separators=(",", ":")).encode()
