"""The baselines, rewritten here: the tasks of two original tutorials on stock Celery, and their web design on FastAPI.

The first tutorial calls ``list()`` on the aggregation, ``json.dumps`` and one ``SET``. The second inserts a document
with metadata when it publishes a task, and uses the stock MongoDB result backend with STARTED stored.
"""

import json
import os
from typing import Any

import redis
from celery import Celery
from celery.result import AsyncResult
from celery.signals import before_task_publish, worker_process_init
from pymongo import MongoClient

app = Celery("original", broker=f"{os.environ['REDIS_URL']}/5")
app.conf.update(
    result_backend=os.environ["MONGODB_URI"],
    mongodb_backend_settings={"database": "original", "taskmeta_collection": "results"},
    task_track_started=True,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)

TTL_SECONDS = 300
clients: dict[str, Any] = {}


def mongodb() -> Any:
    return clients.setdefault("mongodb", MongoClient(os.environ["MONGODB_URI"]))


def results() -> Any:
    return clients.setdefault("redis", redis.Redis.from_url(os.environ["REDIS_URL"], db=6))


@worker_process_init.connect
def forget_clients(**_: Any) -> None:
    clients.clear()


@before_task_publish.connect
def insert_document(headers: Any = None, **_: Any) -> None:
    mongodb().original.metadata.insert_one({"_id": headers["id"], "status": "QUEUED", "metadata_1": "important info"})


LOOKUP = {"$lookup": {"from": "orders", "localField": "_id", "foreignField": "userId", "as": "orders"}}


@app.task
def join_user(user_id: str) -> dict[str, Any]:
    return _stored(f"user_order_result:{user_id}", [{"$match": {"_id": user_id}}, LOOKUP])


@app.task
def join_all() -> dict[str, Any]:
    return _stored("all", [LOOKUP])


@app.task
def nothing() -> None:
    pass


def _stored(key: str, pipeline: list[Any]) -> dict[str, Any]:
    documents = list(mongodb().bench.users.aggregate(pipeline))
    results().set(key, json.dumps(documents, default=str), ex=TTL_SECONDS)
    return {"redis_key": key, "count": len(documents)}


def web() -> Any:
    """The original web design, for ``uvicorn --factory``."""
    from fastapi import FastAPI  # noqa: PLC0415 - installed for benchmarks only

    api = FastAPI()

    @api.get("/task/{task_id}")
    def task(task_id: str) -> dict[str, Any]:
        result = AsyncResult(task_id, app=app)
        return {"status": result.status, "result": result.result}

    return api
