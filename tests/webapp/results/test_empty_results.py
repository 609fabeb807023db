"""Results without rows: their columns are known from the join."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, submit_join, wait_for_state
from tests.worker_tasks.analysis.test_export_excel import sheets
from tests.worker_tasks.analysis.test_export_files import parquet
from worker_tasks.records import ledger
from worker_tasks.results import result_store, result_writer
from worker_tasks.results.publishing import publish

ORDERS = {"from": "orders", "as": "o", "on": [{"local": "_id", "foreign": "userId"}]}
NOBODY = {"database": "shop", "from": "users", "match": {"_id": "nobody"}, "joins": [ORDERS]}


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"fields": ["_id", "name", "o"]}, ["_id", "name", "o"]),
        ({"fields": ["name", "o.amount"]}, ["name", "o.amount"]),
    ],
)
@pytest.mark.parametrize("sort", [[], [["name", 1]]])
def test_an_empty_result_has_a_header(
    client: FlaskClient, worker: Process, chosen: dict[str, Any], names: list[str], sort: list[Any], tmp_path: Path
) -> None:
    task_id = submit_join(NOBODY | chosen | {"sort": sort})
    wait_for_state(task_id, states.SUCCESS)

    def downloaded(suffix: str) -> bytes:
        answer = client.get(f"/api/v1/tasks/{task_id}/result.{suffix}")
        assert answer.status_code == 200, answer.text
        return answer.data

    assert list(csv.reader(io.StringIO(downloaded("csv").decode()))) == [names]
    assert sheets(downloaded("xlsx"))["Result"] == [names]
    types, rows = parquet(downloaded("parquet"), tmp_path)
    assert (list(types), rows) == (names, [])
    assert client.get(f"/tasks/{task_id}/result").status_code == 200


def test_without_chosen_fields_the_added_ones_are_known(client: FlaskClient, worker: Process) -> None:
    task_id = submit_join(NOBODY)
    wait_for_state(task_id, states.SUCCESS)
    summary = result_store.find_task_result(ledger.find_task(task_id))
    assert summary is not None
    assert (summary.count, summary.columns) == (0, ["o"])


def test_the_columns_of_an_empty_part_do_not_appear_in_rows_of_others(servers: None) -> None:
    parts = []
    for number, lines in enumerate(([], [b'{"_id":1}'])):
        writer = result_writer.PartWriter("columns.1", number, 10, 10_000)
        writer.columns_without_rows = ["_id", "nowhere"]
        writer.append(lines)
        writer.columns.update(dict.fromkeys(["_id"] if lines else []))
        parts.append(writer.close())
    assert publish("columns.1", parts, "columns of parts", "columns", 60).columns == ["_id"]
