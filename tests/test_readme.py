"""The documents agree with the code."""

import re
from pathlib import Path

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


def test_the_settings_table_matches_the_settings() -> None:
    rows = [line for line in README.splitlines() if re.match(r"\| `[A-Z_]+`", line)]
    assert rows == [row(field) for field in Settings.model_fields.values()]


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name)
def test_every_link_between_documents_leads_to_a_file(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", document.read_text()) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []
