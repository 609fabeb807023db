"""The writers of files, by the names that the formats give them. Only the worker loads this module."""

from collections.abc import Callable
from pathlib import Path

from worker_tasks.analysis.export_excel import excel
from worker_tasks.analysis.export_files import Making, csv, json_array, json_lines, parquet
from worker_tasks.results.formats import Format

Writer = Callable[[Making, Path], None]

WRITERS: dict[str, Writer] = {writer.__name__: writer for writer in (csv, excel, parquet, json_array, json_lines)}


def write(form: Format, making: Making, folder: Path) -> Path:
    """Writes a file in this format; returns where it is."""
    file = folder / f"result{form.suffix}"
    WRITERS[form.writer](making, file)
    return file
