"""The map in docs/architecture.md names every module by its path, and only modules that exist."""

import re
from collections.abc import Iterator

from tests.support import ROOT

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()


def mapped() -> Iterator[str]:
    """The paths of all modules on the map. They begin a line and are nested by indentation."""
    (block,) = re.findall(r"^```\n(wsgi\.py.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        for name in line.split():
            path = "".join(folder for _, folder in folders) + name
            if name.endswith("/"):
                folders.append((indent, name))
            elif name.endswith(".py"):
                yield path
            else:
                break


def test_the_map_is_complete_and_names_nothing_else() -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("webapp", "worker_tasks")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    named = [path for path in mapped() if path.partition("/")[0] in {"webapp", "worker_tasks"}]
    assert sorted(named) == sorted(there)


def test_the_files_to_change_exist() -> None:
    _, _, section = DOCUMENT.partition("## Where to add things")
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", section))
    there = [path.as_posix() for package in ("webapp", "worker_tasks") for path in (ROOT / package).rglob("*.py")]
    assert named
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in there)} == set()
