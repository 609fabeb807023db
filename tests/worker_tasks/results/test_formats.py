"""The table of file formats, and the writers it names."""

import pytest

from worker_tasks.analysis.export_writers import WRITERS
from worker_tasks.results.formats import FORMATS, Format


def test_formats_and_writers_correspond_one_to_one() -> None:
    assert sorted(file_format.writer for file_format in FORMATS.values()) == sorted(WRITERS)


@pytest.mark.parametrize("file_format", FORMATS.values(), ids=FORMATS)
def test_a_format_is_found_by_its_name_and_has_a_suffix(file_format: Format) -> None:
    assert FORMATS[file_format.name] is file_format
    assert file_format.suffix.startswith(".")
    # Only a worker can embed the provenance.
    assert not (file_format.embeds_provenance and file_format.ready)
