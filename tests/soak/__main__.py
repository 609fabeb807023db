"""python -m tests.soak: mixed work under random faults, and at the end a count of everything.

It starts a Dovetail of its own, breaks it again and again, and prints one JSON summary. It exits with 1 where anything
is not as promised: defects.jsonl in its folder then has each case with its timeline, the logs are beside it.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from development.servers import ServerError
from tests.soak import checks, report, watch
from tests.soak.data import Document
from tests.soak.faults import Conductor
from tests.soak.ledger import Ledger
from tests.soak.processes import ROOT
from tests.soak.stack import NotReady, Stack
from tests.soak.work import People

#: Of the time: how much at its end is without faults; at least and at most so many seconds.
QUIET_SHARE, QUIET_SECONDS = 0.2, (12.0, 60.0)
#: Seconds for everything to end after the last submission, for the probes, and for what is left to go away.
SETTLED_WITHIN, PROBED_WITHIN, CLEAN_WITHIN = 150.0, 60.0, 45.0
CLOCK_OFF = 300


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=30, help="of asking; settling comes after that")
    parser.add_argument("--seed", type=int, default=None, help="of work and faults; another one each time unless given")
    parser.add_argument("--rate", type=float, default=2, help="submissions a second: two workers do about so many")
    parser.add_argument("--workers", type=int, default=2, help="with two slots each")
    parser.add_argument(
        "--clock-off", type=int, default=None, help="seconds, of the last worker; 0: its clock is right"
    )
    parser.add_argument("--folder", type=Path, default=None, help="for logs and the report; var/soak/… unless given")
    parser.add_argument("--keep-data", action="store_true", help="keeps the servers' data too")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    seed = chosen.seed if chosen.seed is not None else random.randrange(10**6)
    started = datetime.now(UTC)
    folder = (chosen.folder or ROOT / "var" / "soak" / f"{started:%Y%m%dT%H%M%S}-{seed}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    clock_off = (
        chosen.clock_off if chosen.clock_off is not None else random.Random(seed).choice([CLOCK_OFF, -CLOCK_OFF])
    )
    options = {"seed": seed, "minutes": chosen.minutes, "rate": chosen.rate, "workers": chosen.workers}
    say(f"seed {seed}, {chosen.minutes:g} minutes; logs in {folder}")
    result_seconds = int(chosen.minutes * 60 + 3_600 + abs(clock_off))
    try:
        with Stack(folder, chosen.workers, result_seconds, clock_off) as stack:
            found = soak(stack, folder, options | {"started": started.isoformat()})
    except (NotReady, ServerError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        if not chosen.keep_data:
            for server in ("redis", "mongodb"):
                shutil.rmtree(folder / server / "data", ignore_errors=True)
    sys.stdout.write(report.as_json(found, indent=1) + "\n")
    return 1 if found["defects"] else 0


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def soak(stack: Stack, folder: Path, options: Document) -> Document:
    """Runs work and faults, waits, and judges."""
    seed, seconds = options["seed"], options["minutes"] * 60
    ledger = Ledger(folder / "ledger.jsonl")
    conductor = Conductor(stack, ledger, seed)
    people = People(stack.web_port, ledger, seed, options["rate"])
    auditor = watch.Auditor(stack, ledger)
    quiet = min(max(seconds * QUIET_SHARE, QUIET_SECONDS[0]), QUIET_SECONDS[1], seconds)
    people.start()
    auditor.start()
    try:
        conductor.run(seconds - quiet, say)
        say("no more faults")
        stack.pause(quiet)
        say(f"no more submissions; {len(ledger.asked)} so far")
        people.stop()
        settled = watch.settle(stack, SETTLED_WITHIN)
        say(f"settled after {settled:.0f} s")
        say("does every worker take what it can?")
        defects = watch.probe(stack, people.ask_practice, PROBED_WITHIN)
        say("is anything left?")
        left = watch.last_leftovers(stack, CLEAN_WITHIN)
        stack.pause(2 * watch.LOOK_SECONDS)
        auditor.stop()
        tasks = watch.tasks_of(stack)
        defects += judge(stack, ledger, conductor, tasks, left)
    finally:
        people.stop()
        auditor.stop()
        ledger.close()
    report.with_faults(defects, conductor, ledger)
    found = report.summary(
        options,
        ledger,
        conductor,
        tasks,
        defects,
        settled_after=round(settled, 1),
        left=left,
        ended_by_themselves=[f"{death.name}, code {death.code}" for death in stack.deaths],
        clock=stack.clock_note,
        memory_mib=report.memory(stack.memory),
        folder=str(folder),
    )
    report.write(folder, found, defects, conductor)
    return found


def judge(
    stack: Stack, ledger: Ledger, conductor: Conductor, tasks: list[Document], left: Document
) -> list[checks.Defect]:
    """Every defect, beside those of the probes."""
    by_id = {task["_id"]: task for task in tasks}
    kinds = {asked.task_id: asked.kind for asked in ledger.asked}
    defects = [
        checks.Defect(what, detail, task_id, kinds.get(task_id), by_id.get(task_id))
        for task_id, what, detail in ledger.seen_wrong
    ]
    with stack.redis(2) as store:
        defects += checks.of_everything(ledger.asked, tasks, watch.reader_of(store), ledger.first_final)
    defects += checks.of_beginnings(tasks, ledger.ended_at, conductor.happened)
    defects += checks.of_replies(ledger.replies, conductor.happened)
    defects += [
        checks.Defect(
            "a process ended by itself",
            f"{death.name}, code {death.code}, at {datetime.fromtimestamp(death.at, UTC):%H:%M:%S}; {death.words}",
        )
        for death in stack.deaths
    ]
    defects += [checks.Defect(f"left over: {name}", report.as_json(value)) for name, value in left.items()]
    return defects


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
