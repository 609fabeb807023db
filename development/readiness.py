"""Waits until web and worker are ready to serve."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus

READY_WITHIN = 60.0  # seconds


class NotReadyError(Exception):
    """A process did not become ready; the message names it."""


def wait_until_ready(address: str, environment: Mapping[str, str], ended: Callable[[], Mapping[str, int]]) -> None:
    """Returns when the web server and the worker both answer, or when a process has ended.

    Raises:
        NotReadyError: one of them does not answer in time.
    """
    give_up = time.monotonic() + READY_WITHIN
    for name, answers in {"web": partial(web_answers, address), "worker": partial(worker_answers, environment)}.items():
        while not ended() and not answers():
            if time.monotonic() > give_up:
                raise NotReadyError(
                    f"{name} did not answer within {READY_WITHIN:.0f} s; its last lines above may say why."
                )
            time.sleep(0.1)


def web_answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def worker_answers(environment: Mapping[str, str]) -> bool:
    """Pings the worker with Celery's own command, so that this process needs none of the worker's code."""
    ping = ["celery", "--app", "worker_tasks.celery_app", "inspect", "ping", "--timeout", "1"]
    try:
        return subprocess.run(ping, env=environment, capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
