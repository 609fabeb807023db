"""The README says what is so."""

import re

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from tests.support import ROOT
from worker_tasks.infra.settings import Settings

README = (ROOT / "README.md").read_text()


def row(field: FieldInfo) -> str:
    alias = field.validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else [alias]
    if field.is_required():
        default = "required"
    elif field.default is None:
        default = ""
    else:
        default = f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
    return f"| {' or '.join(f'`{name}`' for name in names)} | {default} | {field.description} |"


def test_the_table_of_settings_is_the_settings() -> None:
    rows = [line for line in README.splitlines() if re.match(r"\| `[A-Z_]+`", line)]
    assert rows == [row(field) for field in Settings.model_fields.values()]


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md"])
def test_what_the_documents_point_to_is_there(document: str) -> None:
    path = ROOT / document
    links = [link for link in re.findall(r"\]\(([^)]+)\)", path.read_text()) if "://" not in link]
    missing = [link for link in links if not (path.parent / link).exists()]
    assert missing == []
