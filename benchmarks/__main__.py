"""Runs the measurements that are named, or all of them: bulk, small, web, list, sharing, ways, reading."""

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.stack import Servers

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Servers(Path(folder)) as servers:
        # Only now, because the settings are read from the environment once.
        from benchmarks import bulk, lists, reading, sharing, small, strategies, web  # noqa: PLC0415

        rooms = {
            "bulk": bulk,
            "small": small,
            "web": web,
            "list": lists,
            "sharing": sharing,
            "ways": strategies,
            "reading": reading,
        }
        measured = json.loads(RESULTS.read_text())["measured"] if RESULTS.exists() else {}
        for name in chosen.names or rooms:
            for row in rooms[name].measure(servers, chosen.repeats):
                print(row.line(), flush=True)
                measured[row.name] = row.to_document()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    document = {"machine": machine, "at": datetime.now(UTC).isoformat(timespec="minutes"), "measured": measured}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
