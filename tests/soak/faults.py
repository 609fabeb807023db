"""Draws faults at random from the seed, injects them one after the other, and undoes them."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.soak.ledger import Ledger
from tests.soak.proxy import BOTH, Direction, Proxy
from tests.soak.stack import VISIBILITY_SECONDS, Stack

#: The time without faults in seconds: before the first one, and between two of them (minimum and maximum).
FIRST_AFTER, PAUSES = 5.0, (1.0, 6.0)
#: The time after a server's return during which responses may still report it as down, in seconds.
RECOVERS_WITHIN = 15.0
EITHER = (frozenset({Direction.UP}), frozenset({Direction.DOWN}), BOTH)


@dataclass(frozen=True)
class Fault:
    """An ``action`` on a ``target``, for this many seconds."""

    action: str
    target: str
    seconds: float
    directions: frozenset[Direction] = BOTH
    times: int = 1
    reset_broken: bool = True

    def describe(self) -> str:
        where = "" if self.directions == BOTH else f" {'/'.join(sorted(self.directions))}"
        times = "" if self.times == 1 else f" {self.times} times"
        broken = "" if self.action != "swallow" or self.reset_broken else ", half open afterwards"
        return f"{self.action} {self.target}{where}{times}, {self.seconds:.1f} s{broken}"


@dataclass(frozen=True)
class InjectedFault:
    """A fault with its beginning and end, in seconds since 1970."""

    fault: Fault
    began: float
    ended: float

    @property
    def hits_web(self) -> bool:
        return self.fault.target == "web"

    def hits(self, workers: Iterable[str]) -> bool:
        """Whether the fault affects one of these workers, or a server that they need."""
        server, _, whose = self.fault.target.partition(" of ")
        return (whose or server) in {*workers, "all", "redis", "mongodb", "redis and mongodb"}

    def to_document(self) -> dict[str, object]:
        return {"fault": self.fault.describe(), "began": round(self.began, 1), "ended": round(self.ended, 1)}


def draw(rng: random.Random, workers: list[str]) -> "list[Fault]":
    """Returns one fault of each kind, in random order."""
    some = rng.choice(workers)
    away = rng.choice([rng.uniform(0.3, 2), rng.uniform(2, 8)])
    frozen = rng.choice([rng.uniform(1, 5), VISIBILITY_SECONDS + rng.uniform(1, 8)])
    deck = [
        Fault("kill a child of", rng.choice(workers), 0),
        Fault("kill", some, rng.uniform(0, 4)),
        Fault("terminate", rng.choice(workers), rng.uniform(0, 2)),
        Fault("kill", "web", rng.uniform(0, 3)),
        Fault("kill a child of", "web", 0),
        Fault("kill", "redis", away),
        Fault("kill", "mongodb", rng.choice([rng.uniform(0.3, 3), rng.uniform(3, 12), rng.uniform(12, 25)])),
        Fault("kill", "redis and mongodb", rng.uniform(0.5, 5)),
        Fault("freeze", rng.choice(workers), frozen),
        Fault("freeze a child of", rng.choice(workers), VISIBILITY_SECONDS + rng.uniform(1, 8)),
        Fault("freeze", "web", rng.uniform(1, 6)),
        Fault("freeze", "redis", rng.uniform(0.5, 14)),
        Fault("freeze", "mongodb", rng.uniform(0.5, 14)),
        Fault("reset", f"redis of {rng.choice(workers)}", rng.uniform(0.5, 3), times=rng.choice([1, 1, 3])),
        Fault("reset", "redis of all", rng.uniform(0.5, 3), times=rng.choice([1, 1, 3])),
        Fault("reset", "mongodb of all", rng.uniform(0.5, 3), times=rng.choice([1, 2])),
        Fault("refuse", f"redis of {rng.choice(workers)}", rng.uniform(0.5, 6)),
    ]
    for server in ("redis", "mongodb"):
        whose = rng.choice(workers) if server == "redis" and rng.random() < 0.7 else "all"
        stalled, lost = rng.uniform(0.5, 14), rng.uniform(1, 14)
        deck.append(Fault("stall", f"{server} of {whose}", stalled, rng.choice(EITHER)))
        deck.append(Fault("swallow", f"{server} of {whose}", lost, rng.choice(EITHER), reset_broken=rng.random() < 0.5))
    rng.shuffle(deck)
    return deck


class Conductor:
    """Injects the drawn faults, and lets the stack supervise its processes in every pause."""

    def __init__(self, stack: Stack, ledger: Ledger, seed: int) -> None:
        self.injected: list[InjectedFault] = []
        self._stack = stack
        self._ledger = ledger
        self._rng = random.Random(f"faults {seed}")

    def run(self, seconds: float, say: Callable[[str], None]) -> None:
        """Injects faults for this many seconds; all of them are undone when it returns."""
        end = time.monotonic() + seconds
        deck: list[Fault] = []
        self._stack.pause(min(FIRST_AFTER, seconds))
        while True:
            deck = deck or draw(self._rng, self._stack.worker_names)
            fault = deck.pop()
            pause = self._rng.uniform(*PAUSES)
            if time.monotonic() + fault.seconds > end:
                # A shorter fault may still fit.
                if not deck:
                    break
                continue
            say(fault.describe())
            began = time.time()
            self._ledger.note("fault", fault=fault.describe())
            self._do(fault)
            self._ledger.note("mended", fault=fault.describe())
            self.injected.append(InjectedFault(fault, began, time.time()))
            self._stack.pause(max(0.0, min(pause, end - time.monotonic())))
        self._stack.pause(max(0.0, end - time.monotonic()))

    def during(self, began: float, ended: float, after: float = 0.0) -> list[InjectedFault]:
        """Returns the faults that overlap this period; each one counts for ``after`` further seconds."""
        return [each for each in self.injected if each.began <= ended and began <= each.ended + after]

    def _do(self, fault: Fault) -> None:
        if fault.action == "kill":
            self._kill(fault)
        elif fault.action == "terminate":
            if not self._stack.terminate(fault.target):
                self._ledger.report(None, "did not stop", f"{fault.target} was still there after SIGTERM")
            self._stack.pause(fault.seconds)
            self._stack.start(fault.target)
        elif fault.action == "freeze":
            self._stack.signal(fault.target, signal.SIGSTOP)
            self._stack.pause(fault.seconds)
            self._stack.signal(fault.target, signal.SIGCONT)
        elif fault.action in {"kill a child of", "freeze a child of"}:
            self._hit_child(fault)
        else:
            self._disturb(fault)

    def _kill(self, fault: Fault) -> None:
        names = fault.target.split(" and ")
        for name in names:
            self._stack.kill(name)
        self._stack.pause(fault.seconds)
        for name in names:
            self._stack.start(name)

    def _hit_child(self, fault: Fault) -> None:
        child = self._stack.pick_child(fault.target, self._rng)
        if child is None:
            return
        kills = fault.action.startswith("kill")
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(child, signal.SIGKILL if kills else signal.SIGSTOP)
            if not kills:
                self._stack.pause(fault.seconds)
                os.kill(child, signal.SIGCONT)

    def _disturb(self, fault: Fault) -> None:
        proxies = self._proxies(fault.target)
        for number in range(fault.times):
            for proxy in proxies:
                if fault.action == "reset":
                    proxy.reset()
                elif fault.action == "stall":
                    proxy.stall(fault.directions)
                elif fault.action == "swallow":
                    proxy.swallow(fault.directions)
                else:
                    proxy.refuse()
            if fault.action != "reset" or number + 1 < fault.times:
                self._stack.pause(fault.seconds)
        for proxy in proxies:
            proxy.heal(reset_broken=fault.reset_broken)

    def _proxies(self, target: str) -> list[Proxy]:
        server, _, whose = target.partition(" of ")
        if server == "mongodb":
            return [self._stack.mongodb_proxy]
        all_of_redis = self._stack.redis_proxies
        return list(all_of_redis.values()) if whose == "all" else [all_of_redis[whose]]
