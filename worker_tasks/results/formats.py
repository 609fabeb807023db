"""The formats of files that a result can be downloaded in, a row each. Pure: no I/O.

The writers are in the worker's package for reading results: the web process never loads what they need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Ready(StrEnum):
    """How the whole result is sent in a format that needs no worker."""

    #: The bytes that are in Redis.
    AS_STORED = "as stored"
    #: The same rows, with a line break in place of each separator.
    AS_LINES = "as lines"


@dataclass(frozen=True)
class Format:
    """A file format.

    ``name`` is the one in addresses. A format that ``embeds_provenance`` always carries it; others carry it before
    their rows, if asked to. ``ready`` says how the whole result is sent straight from Redis, None where a
    worker has to write the file. Files that are ``is_text`` are kept as gzip. ``label`` is the key of the format's
    words, ``writer`` the name of the function that writes it.
    """

    name: str
    suffix: str
    media_type: str
    label: str
    writer: str
    embeds_provenance: bool = False
    ready: Ready | None = None
    is_text: bool = False


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("csv", ".csv", "text/csv; charset=utf-8", label="csv", writer="write_csv", is_text=True),
        Format(
            "xlsx",
            ".xlsx",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            label="excel",
            writer="write_excel",
            embeds_provenance=True,
        ),
        Format(
            "parquet",
            ".parquet",
            "application/vnd.apache.parquet",
            label="parquet",
            writer="write_parquet",
            embeds_provenance=True,
        ),
        Format(
            "json",
            ".json",
            "application/json",
            label="json",
            writer="write_json",
            ready=Ready.AS_STORED,
            is_text=True,
        ),
        Format(
            "ndjson",
            ".ndjson",
            "application/x-ndjson",
            label="json_lines",
            writer="write_ndjson",
            ready=Ready.AS_LINES,
            is_text=True,
        ),
    )
}
