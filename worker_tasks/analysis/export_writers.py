"""Writes files, using the functions named in the table of formats. Only workers import this module."""

from collections.abc import Callable
from pathlib import Path

from worker_tasks.analysis.export_excel import write_excel
from worker_tasks.analysis.export_files import ExportContext, write_csv, write_json, write_ndjson, write_parquet
from worker_tasks.results.formats import Format

Writer = Callable[[ExportContext, Path], None]

WRITERS: dict[str, Writer] = {
    writer.__name__: writer for writer in (write_csv, write_excel, write_parquet, write_json, write_ndjson)
}


def write(format_: Format, context: ExportContext, folder: Path) -> Path:
    """Writes a file in this format to a folder. Returns the path of the file."""
    file = folder / f"result{format_.suffix}"
    WRITERS[format_.writer](context, file)
    return file
