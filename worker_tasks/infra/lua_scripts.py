"""Lua scripts that Redis runs in one step, each a file in ``lua/`` whose head says what KEYS and ARGV are."""

from importlib.resources import files


def load(*names: str) -> str:
    """The source of a script, such as ``runs/begin``; several names are one script, run one after the other."""
    folder = files("worker_tasks") / "lua"
    return "\n".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names)
