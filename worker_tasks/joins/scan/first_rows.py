"""Shows a few rows of a scan before it writes its own: reading large sides first may take long."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan.layout import JoinLayout, layout_of
from worker_tasks.joins.plan.stages import match_stages, project_stages
from worker_tasks.joins.preflight.others import OtherReader
from worker_tasks.joins.preflight.small_join import RowKeys, join_documents
from worker_tasks.joins.reading.encoding import encode_documents
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results import result_writer

#: The number of left documents that are joined, and the seconds that it may take.
DOCUMENTS, SECONDS = 20, 0.5

logger = logging.getLogger(__name__)


@contextmanager
def shown(spec: JoinSpec, key: str, comment: str) -> Iterator[None]:
    """Shows the first rows of a join while the block writes its rows to ``key``.

    There are none for a sorted join, whose first rows may come from anywhere.
    """
    over = threading.Event()
    if not spec.sort and spec.joins:
        threading.Thread(target=_show, args=(spec, key, comment, over), name="first rows", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with suppress(RedisError):
            result_writer.forget_first_rows(key)


def _show(spec: JoinSpec, key: str, comment: str, over: threading.Event) -> None:
    try:
        rows = find_rows(spec, comment)
        if rows and not over.is_set():
            result_writer.show_first_rows(key, encode_documents(rows, non_finite=True))
    except (PyMongoError, RedisError) as error:
        # The scan itself meets the same error, and retries.
        logger.info("no first rows of %s: %s", key, error)


def find_rows(spec: JoinSpec, comment: str) -> list[Document]:
    """The rows of the first left documents; none if they cannot be found in time."""
    reader = OtherReader(comment, time.monotonic() + SECONDS)
    layout = layout_of(spec)
    left = layout.rows.left
    fields = None if left.stored_paths is None else list(left.stored_paths)
    documents = reader.aggregate(spec.left, [*match_stages(spec.match), {"$limit": DOCUMENTS}, *project_stages(fields)])
    complete = [not any(join.kind_traits.keeps_other for join in spec.joins)]

    def fetch(join: JoinLayout, keys: list[RowKeys]) -> list[Document]:
        found, is_complete = reader.documents(join, keys)
        complete.append(is_complete)
        return found

    if not documents or not all(complete):
        return []
    rows = join_documents(layout, documents, fetch)
    return rows[: spec.limit] if all(complete) else []
