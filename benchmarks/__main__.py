"""Runs the named benchmarks, or all: bulk, small, web, list, sharing, methods, crossover, growth, large, reading."""

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
    parser.add_argument("--data", type=Path, help="a folder that keeps the servers' data for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Servers(options.data or Path(folder)) as servers:
        # These imports are not at the top, because the settings read the environment once, and Servers has just set it.
        from benchmarks import bulk, crossover, growth, large, lists, methods, reading, sharing, small, web  # noqa: PLC0415

        modules = {
            "bulk": bulk,
            "small": small,
            "web": web,
            "list": lists,
            "sharing": sharing,
            "methods": methods,
            "crossover": crossover,
            "growth": growth,
            "large": large,
            "reading": reading,
        }
        measured = json.loads(RESULTS.read_text())["measured"] if RESULTS.exists() else {}
        for name in options.names or modules:
            for row in modules[name].measure(servers, options.repeats):
                print(row.line(), flush=True)
                measured[row.name] = row.to_document()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    document = {"machine": machine, "at": datetime.now(UTC).isoformat(timespec="minutes"), "measured": measured}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
