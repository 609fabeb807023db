"""Every Lua script documents its arguments, and a module loads it."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from worker_tasks.infra import lua_scripts

FOLDER = ROOT / "worker_tasks" / "lua"
SCRIPTS = sorted(FOLDER.rglob("*.lua"))


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_documents_its_keys_and_arguments(path: Path) -> None:
    text = path.read_text()
    head = re.match(r"(--.*\n)+", text)
    assert head
    arguments = r"(?:KEYS|ARGV)(?:\[\d+\])?"
    documented = {"KEYS", *re.findall(rf"^-- ({arguments})", head[0], re.MULTILINE)}
    assert set(re.findall(rf"\b{arguments}", text[head.end() :])) <= documented


def test_a_module_loads_every_script() -> None:
    modules = "".join(path.read_text() for path in (ROOT / "worker_tasks").rglob("*.py"))
    calls = "".join(re.findall(r"lua_scripts\.load\((.*?)\)", modules))
    loaded = set(re.findall(r'"(.+?)"', calls))
    assert loaded == {name_of(path) for path in SCRIPTS}


def test_several_names_load_one_script() -> None:
    text = lua_scripts.load("artifact_job/if_mine", "artifact_job/say")
    assert text.index("return 0 end") < text.index("return 1")
