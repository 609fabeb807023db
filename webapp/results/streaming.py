"""A whole result, or a file that was made of it, streamed from Redis in constant memory."""

import base64
import logging
import re
import threading
import zlib
from collections.abc import Iterator

from flask import Response, request

from webapp.support.errors import Busy
from worker_tasks.analysis import artifacts
from worker_tasks.analysis.artifacts import Artifact, ArtifactSpec
from worker_tasks.analysis.export_selection import GZIP, Selection
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS, Format, Ready
from worker_tasks.results.result_store import SEPARATOR, ResultGone, Summary

#: Downloads that one process streams at once; the other threads answer pages.
MAX_STREAMS = 5
#: Characters of a file's name that say what was asked.
MAX_NAME = 60

logger = logging.getLogger(__name__)
_slots = threading.BoundedSemaphore(MAX_STREAMS)


class _Slot:
    """The right to stream a file, given back once: when all is sent, or nobody wants more of it."""

    def __init__(self) -> None:
        if not _slots.acquire(blocking=False):
            raise Busy("As many files as this server sends at once are on their way. Try again in a few seconds.")
        self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            _slots.release()


def needs_no_export(file_format: Format, selection: Selection, *, inside: bool) -> bool:
    """Whether a file is there without being made."""
    return file_format.ready is not None and selection.is_everything and not inside


def stream_result(summary: Summary, file_format: Format) -> Response:
    """All of a result, as it is in Redis."""
    chunks = _lines(summary) if file_format.ready is Ready.AS_LINES else result_store.read_chunks(summary)
    return _file(summary, chunks, file_format, direct_size(summary, file_format))


def direct_size(summary: Summary, file_format: Format) -> int:
    """The bytes of such a file."""
    # Each row has a line break in place of a separator; of the last one, in place of the brackets.
    return summary.bytes - (summary.count or len(b"[]")) if file_format.ready is Ready.AS_LINES else summary.bytes


def _lines(summary: Summary) -> Iterator[bytes]:
    """The value without its brackets, each row on a line; no byte of a row is looked at."""
    held, first = b"", True
    for chunk in result_store.read_chunks(summary):
        held += chunk[1:] if first else chunk
        first = False
        # What may be cut in the middle of a separator, or is the last bracket, waits for the next chunk.
        ready, held = held[: -len(SEPARATOR)], held[-len(SEPARATOR) :]
        if ready.endswith(b",") and held.startswith(b"\n"):
            ready, held = ready[:-1], b"," + held
        yield ready.replace(SEPARATOR, b"\n")
    if summary.count:
        yield held.removesuffix(b"]").replace(SEPARATOR, b"\n") + b"\n"


def stream_export(summary: Summary, file: ArtifactSpec, found: Artifact) -> Response:
    """A file that a worker has made."""
    file_format, size, stored = FORMATS[file.options["format"]], found.data["size"], found.data["stored"]
    chunks = artifacts.read_artifact(summary, file, "file", stored)
    if not file_format.is_text:
        return _file(summary, chunks, file_format, size)
    if request.accept_encodings.best_match(["gzip", "identity"]) == "gzip":
        response = _file(summary, chunks, file_format, stored)
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = _file(summary, _unpacked(chunks), file_format, size)
    response.headers["Vary"] = "Accept-Encoding"
    return response


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=GZIP)
    for chunk in chunks:
        held = chunk
        while held:
            yield unpacker.decompress(held, result_store.CHUNK_BYTES)
            held = unpacker.unconsumed_tail
    yield unpacker.flush()


def download_name(title: str, summary: Summary, file_format: Format, *, is_excerpt: bool) -> str:
    """What a file is called: what was asked, which task joined it, and whether it is all of it."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:MAX_NAME].strip("-")
    part = "-excerpt" if is_excerpt else ""
    partial = "" if summary.complete else "-partial"
    return f"{words or 'result'}-{summary.task_id[:8]}{part}{partial}{file_format.suffix}"


def as_attachment(response: Response, name: str) -> Response:
    """The same, to be kept under a name."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _file(summary: Summary, chunks: Iterator[bytes], file_format: Format, size: int) -> Response:
    slot = _Slot()
    response = Response(_watched(chunks, summary, slot), content_type=file_format.media_type)
    # Also if nobody ever reads it.
    response.call_on_close(slot.give_back)
    response.content_length = size
    return response


def with_digest(response: Response, sha256: str) -> Response:
    """Says the checksum of a whole result: RFC 9530."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    response.headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return response


def _watched(chunks: Iterator[bytes], summary: Summary, slot: _Slot) -> Iterator[bytes]:
    """Breaks off where the result goes away: the connection is cut, so that nobody takes a part for the whole."""
    try:
        yield from chunks
    except ResultGone:
        logger.warning("the result %s went away while it was read", summary.key)
        raise
    finally:
        slot.give_back()
