"""The first rows of a running join, for people who wait for it.

They are read from the first part as it is written. A scan that has to read large sides first writes nothing for a
while, so the worker joins a few left documents before that and stores their rows in Redis.
"""

import json
import logging
import time
from typing import Any

from bson import json_util
from kombu.utils.encoding import ensure_bytes
from pymongo.errors import PyMongoError

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.plan.layout import JoinLayout, layout_of
from worker_tasks.joins.preflight.others import OtherReader
from worker_tasks.joins.preflight.probing import SAMPLE_MATCHES, one_sided
from worker_tasks.joins.preflight.small_join import RowKeys, join_documents
from worker_tasks.joins.run.run_state import RunState
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results import result_writer
from worker_tasks.results.result_writer import STAGING_SECONDS

#: Left documents to join, rows to store, and the time limit of it all in seconds.
DOCUMENTS, ROWS, SECONDS = 20, 20, 0.5

logger = logging.getLogger(__name__)


def join_first_rows(run: str, spec: JoinSpec, comment: str) -> None:
    """Joins the first left documents and stores their rows, if that takes less than ``SECONDS``.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or refuses.
    """
    try:
        with within(SECONDS):
            rows = _joined(spec, comment)
    except (TookTooLong, PyMongoError) as error:
        logger.info("%s shows no first rows: %s", run, error)
        return
    if rows:
        text = json_util.dumps(rows, json_options=json_util.RELAXED_JSON_OPTIONS)
        connections().results.set(_key(run), text, ex=STAGING_SECONDS)


def _joined(spec: JoinSpec, comment: str) -> list[Document]:
    layout = layout_of(spec.model_copy(update={"joins": [one_sided(join) for join in spec.joins]}))
    left = layout.rows.left
    pipeline = [*left.pipeline(), {"$limit": DOCUMENTS}]
    documents = list(find_collection(*left.side).aggregate(pipeline, comment=comment))
    reader = OtherReader(comment, time.monotonic() + SECONDS)
    incomplete: list[JoinLayout] = []

    def fetch(join: JoinLayout, keys: list[RowKeys]) -> list[Document]:
        found, covered = reader.documents(join, keys, SAMPLE_MATCHES)
        if covered < len(keys):
            incomplete.append(join)
        return found

    rows = join_documents(layout, documents, fetch, SAMPLE_MATCHES)
    return [] if incomplete else rows[:ROWS]


def find_first_rows(state: RunState, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` of the first rows of a run.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    if rows := result_writer.glimpse(state.first_key, limit):
        return rows
    text = connections().results.get(_key(state.run))
    return [] if text is None else json.loads(ensure_bytes(text))[:limit]


def forget_first_rows(run: str) -> None:
    """Deletes the stored rows of a run.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.delete(_key(run))


def _key(run: str) -> str:
    return f"first_rows:{run}"
