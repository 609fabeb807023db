"""Streams a whole result or an exported file from Redis in constant memory."""

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
from worker_tasks.results.result_store import SEPARATOR, ResultGone
from worker_tasks.results.summaries import Summary

#: The maximum number of concurrent downloads in one process. The limit leaves threads free for pages.
MAX_STREAMS = 5
#: The maximum length of the task's title in a file name.
MAX_TITLE_LENGTH = 60

logger = logging.getLogger(__name__)
_slots = threading.BoundedSemaphore(MAX_STREAMS)


class _Slot:
    """The right to stream a file. ``give_back()`` releases it; further calls do nothing.

    Raises:
        Busy: all slots are taken.
    """

    def __init__(self) -> None:
        if not _slots.acquire(blocking=False):
            raise Busy("As many files as this server sends at once are on their way. Try again in a few seconds.")
        self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            _slots.release()


def needs_no_export(file_format: Format, selection: Selection, *, embed_provenance: bool) -> bool:
    """Whether the file can be streamed from the result itself, without a worker."""
    return file_format.ready is not None and selection.is_everything and not embed_provenance


def stream_result(summary: Summary, file_format: Format) -> Response:
    """A whole result as JSON or JSON lines.

    Raises:
        Busy: all download slots are taken.
    """
    chunks = _lines(summary) if file_format.ready is Ready.AS_LINES else result_store.read_chunks(summary)
    return _file(summary, chunks, file_format, direct_size(summary, file_format))


def direct_size(summary: Summary, file_format: Format) -> int:
    """The size in bytes of a result that is streamed without a worker."""
    # JSON lines replace each two-byte separator by a line break, and both brackets by one at the end.
    return summary.bytes - (summary.count or len(b"[]")) if file_format.ready is Ready.AS_LINES else summary.bytes


def _lines(summary: Summary) -> Iterator[bytes]:
    """The rows of a result as JSON lines. Replaces brackets and separators without parsing the rows."""
    held, first = b"", True
    for chunk in result_store.read_chunks(summary):
        held += chunk[1:] if first else chunk
        first = False
        # Hold back the end of the chunk, because it may be half a separator or the last bracket.
        ready, held = held[: -len(SEPARATOR)], held[-len(SEPARATOR) :]
        if ready.endswith(b",") and held.startswith(b"\n"):
            ready, held = ready[:-1], b"," + held
        yield ready.replace(SEPARATOR, b"\n")
    if summary.count:
        yield held.removesuffix(b"]").replace(SEPARATOR, b"\n") + b"\n"


def stream_export(summary: Summary, spec: ArtifactSpec, artifact: Artifact) -> Response:
    """A file that a worker has made, compressed if the client accepts gzip.

    Raises:
        Busy: all download slots are taken.
    """
    file_format, size, stored = FORMATS[spec.options["format"]], artifact.data["size"], artifact.data["stored"]
    chunks = artifacts.read_artifact(summary, spec, "file", stored)
    if not file_format.is_text:
        return _file(summary, chunks, file_format, size)
    if request.accept_encodings.best_match(["gzip", "identity"]) == "gzip":
        response = _file(summary, chunks, file_format, stored)
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = _file(summary, _decompress(chunks), file_format, size)
    response.headers["Vary"] = "Accept-Encoding"
    return response


def _decompress(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(wbits=GZIP)
    for chunk in chunks:
        held = chunk
        while held:
            yield decompressor.decompress(held, result_store.CHUNK_BYTES)
            held = decompressor.unconsumed_tail
    yield decompressor.flush()


def download_name(title: str, summary: Summary, file_format: Format, *, is_excerpt: bool) -> str:
    """A file name with the task's title and id, such as ``users-with-their-orders-0a1b2c3d-excerpt.csv``."""
    title = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:MAX_TITLE_LENGTH].strip("-")
    part = "-excerpt" if is_excerpt else ""
    partial = "" if summary.complete else "-partial"
    return f"{title or 'result'}-{summary.task_id[:8]}{part}{partial}{file_format.suffix}"


def as_attachment(response: Response, name: str) -> Response:
    """Marks the response as a download with this file name."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _file(summary: Summary, chunks: Iterator[bytes], file_format: Format, size: int) -> Response:
    slot = _Slot()
    response = Response(_guard(chunks, summary, slot), content_type=file_format.media_type)
    # Releases the slot even if the body is never read.
    response.call_on_close(slot.give_back)
    response.content_length = size
    return response


def with_digest(response: Response, sha256: str) -> Response:
    """Adds the checksum of the whole result as a Repr-Digest header (RFC 9530)."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    response.headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return response


def _guard(chunks: Iterator[bytes], summary: Summary, slot: _Slot) -> Iterator[bytes]:
    """Closes the connection if the result disappears, so that no client mistakes a part for the whole file."""
    try:
        yield from chunks
    except ResultGone:
        logger.warning("the result %s disappeared while it was read", summary.key)
        raise
    finally:
        slot.give_back()
