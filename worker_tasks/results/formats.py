"""The table of file formats for downloads.

The functions that write the files are in worker_tasks/analysis/export_writers.py, so that the web process does not load
the libraries that they need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Ready(StrEnum):
    """How to send a complete result in a format that needs no worker."""

    #: The bytes in Redis, unchanged.
    AS_STORED = "as stored"
    #: The same rows, one per line, without brackets and commas around them.
    AS_LINES = "as lines"


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: the name in URLs.
        label: the key for looking up the format's name and description on pages.
        writer: the name of the function that writes the file.
        embeds_provenance: whether the file always contains the provenance. In other formats, the provenance comes
            before the rows if the requester asks for it.
        ready: how to send the complete result straight from Redis; None if a worker has to write the file.
        is_text: whether the file is text. Text files are stored gzipped.
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
    file_format.name: file_format
    for file_format in (
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
