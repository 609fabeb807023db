"""python -m tests.soak runs mixed work under random faults, and recounts everything at the end.

Starts a Dovetail of its own, breaks it again and again, and prints a JSON summary. Exits with 1 if Dovetail broke a
promise: defects.jsonl in the soak's folder then describes each case with its timeline; the logs are in the same folder.
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

#: The share of the time without faults at the end, and its minimum and maximum in seconds.
QUIET_SHARE, QUIET_SECONDS = 0.2, (12.0, 60.0)
#: Time limits in seconds: for all tasks to end after the last submission, for the probes, and for cleaning up.
SETTLED_WITHIN, PROBED_WITHIN, CLEAN_WITHIN = 150.0, 60.0, 45.0
CLOCK_OFF = 300


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=30, help="minutes of submissions, without settling")
    parser.add_argument("--seed", type=int, default=None, help="seed of work and faults (default: random)")
    parser.add_argument("--rate", type=float, default=2, help="submissions per second; two workers manage about 2")
    parser.add_argument("--workers", type=int, default=2, help="number of workers, with two slots each")
    parser.add_argument(
        "--clock-off", type=int, default=None, help="seconds by which the last worker's clock is wrong; 0 for none"
    )
    parser.add_argument("--folder", type=Path, default=None, help="folder of logs and report (default: var/soak/…)")
    parser.add_argument("--keep-data", action="store_true", help="keep the servers' data as well")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    started = datetime.now(UTC)
    folder = (args.folder or ROOT / "var" / "soak" / f"{started:%Y%m%dT%H%M%S}-{seed}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    clock_off = args.clock_off if args.clock_off is not None else random.Random(seed).choice([CLOCK_OFF, -CLOCK_OFF])
    options = {"seed": seed, "minutes": args.minutes, "rate": args.rate, "workers": args.workers}
    say(f"seed {seed}, {args.minutes:g} minutes; logs in {folder}")
    result_seconds = int(args.minutes * 60 + 3_600 + abs(clock_off))
    try:
        with Stack(folder, args.workers, result_seconds, clock_off) as stack:
            summary = soak(stack, folder, options | {"started": started.isoformat()})
    except (NotReady, ServerError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        if not args.keep_data:
            for server in ("redis", "mongodb"):
                shutil.rmtree(folder / server / "data", ignore_errors=True)
    sys.stdout.write(report.as_json(summary, indent=1) + "\n")
    return 1 if summary["defects"] else 0


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def soak(stack: Stack, folder: Path, options: Document) -> Document:
    """Runs work and faults, waits until everything has ended, and checks it; returns the summary."""
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
        say(f"no more submissions; {len(ledger.submissions)} so far")
        people.stop()
        settled = watch.settle(stack, SETTLED_WITHIN)
        say(f"settled after {settled:.0f} s")
        say("does every worker use all of its slots?")
        defects = watch.probe(stack, people.submit_practice, PROBED_WITHIN)
        say("is anything left over?")
        left = watch.final_leftovers(stack, CLEAN_WITHIN)
        stack.pause(2 * watch.AUDIT_SECONDS)
        auditor.stop()
        tasks = watch.tasks_of(stack)
        defects += find_defects(stack, ledger, conductor, tasks, left)
    finally:
        people.stop()
        auditor.stop()
        ledger.close()
    report.attach_faults(defects, conductor, ledger)
    summary = report.summary(
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
    report.write(folder, summary, defects, conductor)
    return summary


def find_defects(
    stack: Stack, ledger: Ledger, conductor: Conductor, tasks: list[Document], left: Document
) -> list[checks.Defect]:
    """Returns every defect except those of the probes."""
    by_id = {task["_id"]: task for task in tasks}
    kinds = {submission.task_id: submission.kind for submission in ledger.submissions}
    defects = [
        checks.Defect(title, detail, task_id, kinds.get(task_id), by_id.get(task_id))
        for task_id, title, detail in ledger.observed_defects
    ]
    with stack.redis(2) as store:
        defects += checks.check_everything(ledger.submissions, tasks, watch.result_reader(store), ledger.first_final)
    defects += checks.check_repeats(tasks, ledger.ended_at, conductor.injected)
    defects += checks.check_replies(ledger.replies, conductor.injected)
    defects += [
        checks.Defect(
            "a process ended by itself",
            f"{death.name}, code {death.code}, at {datetime.fromtimestamp(death.at, UTC):%H:%M:%S}; {death.log_tail}",
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
