"""Describes the API in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1), from the models that parse requests."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from worker_tasks.analysis.row_query import Operator
from worker_tasks.results.formats import FORMATS

PROBLEMS = {
    "400": "The body is not JSON.",
    "404": "There is no task with this id.",
    "409": "Not as the task is now.",
    "410": "The result expired, was discarded or lost, or another run took its place.",
    "422": "What was asked for cannot be done; ``errors`` names each field and says why.",
    "503": "A server that is needed does not answer; or a worker is still on it: ask again after Retry-After.",
}

PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
        "conflicts": {
            "type": "object",
            "description": "Of each key of metadata that somebody else changed: ``{yours, stored}``, null if deleted.",
        },
    },
}

TASK = {
    "type": "object",
    "description": "What was asked, by whom, why, and what became of it. Instants are ISO 8601.",
    "required": ["task_id", "status", "metadata", "timeline"],
    "properties": {
        "task_id": {"type": "string"},
        "status": {"enum": ["QUEUED", "RECEIVED", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]},
        "metadata": {"type": "object"},
        "join": {"anyOf": [{"$ref": "#/components/schemas/JoinSpec"}, {"type": "null"}]},
        "result": {"description": "``{redis_key, count}``, or ``{type, message}`` of a failure, or null."},
        "result_expires_at": {
            "type": ["string", "null"],
            "description": "Until when the rows stay, or stayed; null without a result.",
        },
        "partial": {"description": "``{redis_key, count}`` of what was joined before the run was stopped, or null."},
        "progress": {
            "description": "While it runs: ``{done, total, unit, size, rate, share, seconds_left}``, null if unknown."
        },
        "checks": {"description": "What was found before it was submitted, without the preview, or null."},
        "unmatched": {"description": "The rows in which a join found nothing, by the field it brings in, or null."},
        "explanation": {"description": "Why the result is empty, in sentences, or null."},
        "timeline": {"type": "array", "items": {"type": "object"}},
        "links": {"type": "object", "description": "Where the rows and the files of its result are."},
    },
}

ROWS = {
    "type": "object",
    "required": ["count", "offset", "columns", "complete", "rows"],
    "properties": {
        "count": {"type": "integer"},
        "offset": {"type": "integer"},
        "columns": {"type": "array", "items": {"type": "string"}},
        "complete": {
            "type": "boolean",
            "description": "False while it is joined, and of a run that was stopped.",
        },
        "expires_at": {"type": ["string", "null"]},
        "rows": {"type": "array", "items": {"type": "object"}, "description": "Relaxed MongoDB Extended JSON v2."},
    },
}

CHECKS = {
    "type": "object",
    "description": "From bounded samples; nothing is recorded, nothing runs.",
    "required": ["findings", "expected", "preview", "pipeline"],
    "properties": {
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "level": {"enum": ["good", "note", "warning", "stop"]},
                    "text": {"type": "string"},
                    "join": {"type": ["integer", "null"], "description": "The number of the join that it is about."},
                    "cure": {"description": "``{join, pair, field, value}``: what to change, or null."},
                    "command": {"type": ["string", "null"], "description": "For MongoDB's shell."},
                },
            },
        },
        "expected": {"description": "``{rows, bytes, seconds, rates}``; null for what could not be found out in time."},
        "preview": {"type": "array", "items": {"type": "object"}, "description": "A few rows as they will come."},
        "is_sample": {"type": "boolean", "description": "Whether the preview is of a sample."},
        "pipeline": {"type": "string", "description": "What will be sent, for mongosh or Compass."},
        "seconds": {"type": "number", "description": "What looking took."},
    },
}

COMPARISON = {
    "type": "object",
    "description": "How many rows were added, are gone, changed, or are the same.",
    "required": ["key", "added", "gone", "changed", "same"],
    "properties": {
        "key": {"type": "array", "items": {"type": "string"}, "description": "The columns that rows are paired by."},
        **{name: {"type": "integer"} for name in ("added", "gone", "changed", "same")},
        "repeated": {"type": "boolean", "description": "Whether several rows have the same key."},
        "changes": {"type": "object", "description": "How many values changed, by column."},
        "only_older": {"type": "array", "items": {"type": "string"}, "description": "Columns that are gone."},
        "only_newer": {"type": "array", "items": {"type": "string"}, "description": "New columns."},
    },
}

SCHEMAS = {"Problem": PROBLEM, "Task": TASK, "Rows": ROWS, "Checks": CHECKS, "Comparison": COMPARISON}


def _query(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}


#: Parameters that select and sort the rows of a result.
ROW_QUERY_PARAMETERS = [
    _query(
        "sort",
        "A column to sort by, - before it for downwards; may come again. If a column is named -a, then -a means that "
        "column; “desc a” means a downwards in any case, and --a means -a downwards.",
    ),
    _query("q", "Text that occurs in any column, whatever the case of its letters."),
    _query("where", "A column that a condition is about; comes as often as is and value."),
    _query("is", f"Its operator: {', '.join(Operator)}."),
    _query("value", "What it is compared with; instants in UTC."),
]
#: The path of a task, and its parameter.
TASK_PATH = "/api/v1/tasks/{task_id}"
TASK_ID = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}


def describe_api(models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        models: the request models by schema name.
    """
    _, schemas = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dovetail", "version": "1", "description": "Joins MongoDB collections in the background."},
        "paths": _paths(),
        "components": {"schemas": {**schemas["$defs"], **SCHEMAS}},
    }


def _paths() -> dict[str, Any]:
    return {**_join_paths(), **_task_paths(), **_result_paths(), **_profile_paths(), **_comparison_path()}


def _join_paths() -> dict[str, Any]:
    return {
        "/api/v1/joins": {
            "post": {
                "summary": "Ask for a join",
                "requestBody": _body("Asked"),
                "responses": {
                    "202": _json("Recorded; Location is the task.", {"type": "object"}),
                    **_problems("400", "422", "503"),
                },
            }
        },
        "/api/v1/joins/check": {
            "post": {
                "summary": "Look at a join before it runs: what will come of it, what it costs, what is wrong with it",
                "requestBody": _body("Asked"),
                "responses": {"200": _model("What was found.", "Checks"), **_problems("400", "422", "503")},
            }
        },
    }


def _task_paths() -> dict[str, Any]:
    return {
        "/api/v1/tasks": {
            "get": {
                "summary": "Find tasks, newest first",
                "parameters": [
                    _query("status", "As shown: QUEUED, STARTED, SUCCESS, FAILURE, REVOKED."),
                    _query("q", "Text that occurs in ids, names, arguments, collections or metadata; within 1.5 s."),
                    _query("metadata.{key}", "The value of one key of the metadata; any key."),
                    _query("by", "Who asked for it."),
                    _query("join", "The fingerprint of a join."),
                    _query(
                        "since", "Asked for at this date or instant (ISO 8601) or later; UTC unless it says otherwise."
                    ),
                    _query("until", "Asked for before this date or instant."),
                    _query("limit", "1 to 200; 50 where it is not given."),
                    _query("cursor", "From the Link header of the page before."),
                ],
                "responses": {
                    "200": _json("A page.", {"type": "array", "items": {"$ref": "#/components/schemas/Task"}}),
                    **_problems("422", "503"),
                },
            }
        },
        TASK_PATH: {
            "parameters": [TASK_ID],
            "get": {"summary": "Follow a task", "responses": {"200": _model("The task.", "Task"), **_problems("404")}},
            "patch": {
                "summary": "Change its metadata",
                "requestBody": _body("MetadataChange"),
                "responses": {"200": _model("The task.", "Task"), **_problems("400", "404", "409", "422")},
            },
            "delete": {
                "summary": "Cancel it",
                "responses": {"202": _model("It was not finished.", "Task"), **_problems("404", "409")},
            },
        },
    }


def _result_paths() -> dict[str, Any]:
    return {
        f"{TASK_PATH}/result": {
            "parameters": [TASK_ID],
            "get": {
                "summary": "Read rows",
                "parameters": [
                    _query("offset", "The first row, counted from 0."),
                    _query("limit", "1 to 1,000; 50 where it is not given."),
                    *ROW_QUERY_PARAMETERS,
                ],
                "responses": {"200": _model("The rows.", "Rows"), **_problems("404", "409", "410", "422", "503")},
            },
            "delete": {
                "summary": "Discard the result at once, for all tasks that share it",
                "responses": {
                    "200": _model("The task; its result is gone.", "Task"),
                    **_problems("404", "409", "410", "503"),
                },
            },
        },
        f"{TASK_PATH}/result/keeping": {
            "parameters": [TASK_ID],
            "post": {
                "summary": "Keep the result longer, for all tasks that share it; 409 if it cannot be kept any longer",
                "responses": {
                    "200": _model("The task; result_expires_at is the new end.", "Task"),
                    **_problems("404", "409", "410", "503"),
                },
            },
        },
        **{
            f"{TASK_PATH}/result.{file_format.name}": {
                "parameters": [TASK_ID],
                "get": {
                    "summary": f"Download the result, or a part of it, as {file_format.name.upper()}",
                    "parameters": [
                        _query("columns", "A column that is wanted, in this order; may come again. All if none does."),
                        _query("inside", "yes: the provenance goes into the file, also where it has no place for it."),
                        *ROW_QUERY_PARAMETERS,
                    ],
                    "responses": {
                        "200": {"description": "Streamed.", "content": {file_format.media_type: {}}},
                        **_problems("404", "409", "410", "422", "503"),
                    },
                },
            }
            for file_format in FORMATS.values()
        },
    }


def _profile_paths() -> dict[str, Any]:
    return {
        f"{TASK_PATH}/profile": {
            "parameters": [TASK_ID],
            "get": {
                "summary": "Each column of the result in figures",
                "responses": {
                    "200": _json("The columns.", {"type": "object"}),
                    **_problems("404", "409", "410", "503"),
                },
            },
        },
        f"{TASK_PATH}/provenance": {
            "parameters": [TASK_ID],
            "get": {
                "summary": "Where the result comes from: who asked, why, how it ran, its checksum",
                "parameters": ROW_QUERY_PARAMETERS,
                "responses": {
                    "200": _json("The provenance.", {"type": "object"}),
                    **_problems("404", "409", "410", "422", "503"),
                },
            },
        },
    }


def _comparison_path() -> dict[str, Any]:
    return {
        "/api/v1/comparison": {
            "get": {
                "summary": "What changed between the results of two tasks",
                "parameters": [
                    _query("older", "The id of a task."),
                    _query("newer", "The id of another one."),
                    _query("key", "A column by which rows are paired; may come again. Found by itself if none does."),
                ],
                "responses": {
                    "200": _model("What changed.", "Comparison"),
                    **_problems("404", "409", "410", "422", "503"),
                },
            },
        },
    }


def _body(model: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _model(description: str, model: str) -> dict[str, Any]:
    return _json(description, {"$ref": f"#/components/schemas/{model}"})


def _problems(*codes: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {code: {"description": PROBLEMS[code], "content": content} for code in codes}
