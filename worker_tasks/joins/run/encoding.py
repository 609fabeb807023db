"""BSON as MongoDB sends it to lines of relaxed Extended JSON v2, a slice of a batch at a time.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

import gc
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import bson
import orjson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion

from worker_tasks.results.result_store import Unmatched

#: BSON bytes that are decoded at once: what the decoded documents take in memory is some ten times as much.
SLICE_BYTES = 512 * 1024

_LENGTH = struct.Struct("<i")
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
_ORJSON = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
# Infinity, NaN and their negatives as BSON has them, all of which JSON and orjson have not.
_NO_NUMBERS = tuple(struct.pack("<Q", bits << 48) for bits in (0x7FF0, 0xFFF0, 0x7FF8, 0xFFF8))


class LineEncoder:
    """Documents as JSON, one a line. The names of their fields go into ``columns``, as first seen over all of them.

    ``unmatched`` notes, for each field that a join brings in, the documents in which it found nothing.
    """

    def __init__(self, columns: dict[str, None], unmatched: dict[str, Unmatched] | None = None) -> None:
        self.columns = columns
        self.unmatched = {} if unmatched is None else unmatched
        self._unmatched_of_slice: dict[str, list[int]] = {}
        self._encoded = 0

    def encode(self, batch: bytes) -> Iterator[list[bytes]]:
        """The documents of a batch of concatenated BSON, a slice of them at a time."""
        for piece in _slices(batch):
            with _collector_paused():
                documents = bson.decode_all(piece, _CODEC)
                for document in documents:
                    if not document.keys() <= self.columns.keys():
                        self.columns.update(dict.fromkeys(document))
                for name in self.unmatched:
                    rows = enumerate(documents, start=self._encoded)
                    # Missing, an empty list, or a count of none. A match of which no field is kept is an empty
                    # document, and still a match.
                    self._unmatched_of_slice[name] = [
                        row for row, document in rows if not (found := document.get(name)) and found != {}
                    ]
                self._encoded += len(documents)
                if any(no_number in piece for no_number in _NO_NUMBERS):
                    lines = [_encode_slowly(document) for document in documents]
                else:
                    lines = [orjson.dumps(document, _extended, _ORJSON) for document in documents]
                del documents
            yield lines

    def note_unmatched(self, written: int) -> None:
        """Notes the rows without a match of the newest slice, so far as they are among the first ``written`` rows."""
        for name, rows in self._unmatched_of_slice.items():
            self.unmatched[name].add([row for row in rows if row < written])
        self._unmatched_of_slice = {}


def _slices(batch: bytes) -> Iterator[bytes]:
    """Cuts at the documents' borders: each begins with its length."""
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
    # Decoding makes many objects and no cycles; the collector, looking for some, takes as long as the decoding.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _extended(value: Any) -> Any:
    if isinstance(value, datetime):
        # json_util's own way takes five times as long; every datetime read here is UTC, to the millisecond, and
        # of a year from 1 to 9999.
        if value.year >= 1970:  # noqa: PLR2004 - where relaxed Extended JSON begins to write dates as text
            return {"$date": f"{value.isoformat(timespec='milliseconds' if value.microsecond else 'seconds')}Z"}
        return json_util.default(value, json_util.RELAXED_JSON_OPTIONS)
    return json_util.default(value, json_util.RELAXED_JSON_OPTIONS)


def _encode_slowly(document: dict[str, Any]) -> bytes:
    options = json_util.RELAXED_JSON_OPTIONS
    return json_util.dumps(document, json_options=options, ensure_ascii=False, separators=(",", ":")).encode()


def decode(line: bytes) -> dict[str, Any]:
    """One line as it was written, numbers exact."""
    return json.loads(line)
