"""Loads the Lua scripts in ``lua/``, which Redis runs atomically. Each file documents its KEYS and ARGV."""

from importlib.resources import files


def load(*names: str) -> str:
    """The source of a script such as ``run_state/begin``. Concatenates several scripts into one."""
    folder = files("worker_tasks") / "lua"
    return "\n".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names)
