"""The table of file formats, and the writers it names."""

import pytest

from worker_tasks.analysis.export_writers import WRITERS
from worker_tasks.results.formats import FORMATS, Format


def test_every_format_has_a_writer_of_its_own_and_every_writer_a_format() -> None:
    assert sorted(form.writer for form in FORMATS.values()) == sorted(WRITERS)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_format_is_found_by_its_name_and_has_a_suffix(form: Format) -> None:
    assert FORMATS[form.name] is form
    assert form.suffix.startswith(".")
    # Without a worker the provenance could not be put inside.
    assert not (form.embeds_provenance and form.ready)
