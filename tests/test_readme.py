"""The documents agree with the code."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from tests.support import ROOT
from worker_tasks.infra.settings import SOURCES_ALIAS, Settings
from worker_tasks.infra.settings_types import SourceSettings

README = (ROOT / "README.md").read_text()


def rows(name: str, field: FieldInfo) -> list[str]:
    """The rows of a setting; those of the sources stand for any number of variables."""
    if name == "sources":
        parts = SourceSettings.model_fields.values()
        return [row(part, [f"{SOURCES_ALIAS}_{part.validation_alias}"], "") for part in parts]
    alias = field.validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [row(field, names, default(field))]


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def row(field: FieldInfo, names: Iterable[object], default: str) -> str:
    return f"| {' or '.join(f'`{name}`' for name in names)} | {default} | {field.description} |"


def test_the_settings_table_matches_the_settings() -> None:
    table = [line for line in README.splitlines() if re.match(r"\| `[A-Z_]+[`<]", line)]
    assert table == [line for name, field in Settings.model_fields.items() for line in rows(name, field)]


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name)
def test_every_link_between_documents_leads_to_a_file(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", document.read_text()) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []
