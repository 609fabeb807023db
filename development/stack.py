"""bin/dev runs Redis, MongoDB, web and worker with the sample data, until Ctrl-C."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from development.clone import Clone, CloneError
from development.processes import Processes, read_procfile
from development.readiness import NotReadyError, wait_until_ready
from development.samples.loading import SamplesError, load
from development.servers import Server, ServerError, is_free, start_mongodb, start_redis

ROOT = Path(__file__).resolve().parent.parent
LAST_PORT = 65535
RELEASE_WITHIN = 120.0  # seconds
SOFT_SHUTDOWN = 3.0  # seconds for running tasks to finish before they go back to the queue
STOP_WITHIN = 15.0  # seconds for web and worker together

READY = """
  Dovetail is ready:  {address}

  Stop it with Ctrl-C; nothing is lost. Another terminal reaches its servers after
      eval "$(bin/dev env)"
  Data and logs are in {var}/
"""


class StackError(Exception):
    """Web or worker cannot run. The message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/dev", description="Run Dovetail here. PORT says where, 8000 unless set.")
    parser.add_argument("command", nargs="?", choices=["env"], help="print the running servers' addresses for a shell")
    arguments = parser.parse_args()
    clone = Clone(ROOT)
    try:
        return print_servers(clone) if arguments.command == "env" else run(clone)
    except (CloneError, ServerError, SamplesError, StackError, NotReadyError) as error:
        print(error, file=sys.stderr)
    except PermissionError as error:
        print(f"{error.filename} cannot be used ({error.strerror}). Make it yours, or remove it.", file=sys.stderr)
    return 1


def print_servers(clone: Clone) -> int:
    for name, url in clone.servers().items():
        print(f"export {name}={shlex.quote(url)}")
    return 0


def run(clone: Clone) -> int:
    """Starts everything in order, and stops it in reverse order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt_once)
    try:
        with ExitStack() as running:
            running.enter_context(clone.claim())
            port = web_port()
            servers = {
                "REDIS_URL": named("REDIS_URL", "CELERY_BROKER_URL")
                or start(running, clone, start_redis, "Redis", 6379),
                "MONGODB_URI": named("MONGODB_URI", "MONGODB_HOST")
                or start(running, clone, start_mongodb, "MongoDB", 27017),
            }
            load(servers["MONGODB_URI"])
            address = f"http://127.0.0.1:{port}"
            running.enter_context(clone.running(address, servers))
            run_procfile(clone, address, environment(clone, port, servers))
    except KeyboardInterrupt:
        print("Stopped; the next start finds everything as it was.", flush=True)
    return 0


def interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Interrupts on the first signal and ignores later ones, so that a second Ctrl-C does not disturb the shutdown."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def web_port() -> int:
    text = os.environ.get("PORT") or "8000"
    if not (text.isdigit() and 0 < int(text) <= LAST_PORT):
        raise StackError(f"PORT is {text!r}, which is no port. Try PORT=8001 bin/dev.")
    try:
        free = is_free(int(text))
    except PermissionError as error:
        raise StackError(f"Port {text} is reserved for root. Choose another: PORT=8000 bin/dev.") from error
    if not free:
        raise StackError(
            f"Port {text} is taken. Stop what uses it, or choose another: PORT={int(text) % LAST_PORT + 1} bin/dev."
        )
    return int(text)


def named(*names: str) -> str | None:
    """Returns the value of the first of these variables that is set, the URL of a server to use instead of our own."""
    return next((value for name in names if (value := os.environ.get(name))), None)


def start(running: ExitStack, clone: Clone, starter: Callable[[Path, int], Server], name: str, usual_port: int) -> str:
    server = starter(clone.var / name.lower(), clone.port(name, usual_port))
    return running.enter_context(server).url


def environment(clone: Clone, port: int, servers: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of web and worker."""
    ours = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "PORT": str(port),
        # Reachable from this machine only. The developer's own arguments come later and win.
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port} {os.environ.get('GUNICORN_CMD_ARGS', '')}",
        "WORKER_SOFT_SHUTDOWN_SECONDS": f"{SOFT_SHUTDOWN:.0f}",
        "COOKIES_SECURE": "false",  # plain HTTP on this machine
        "SECRET_KEY": os.environ.get("SECRET_KEY") or clone.secret_key(),
    }
    return {**os.environ, **servers, **ours}


def run_procfile(clone: Clone, address: str, environment: Mapping[str, str]) -> None:
    """Runs web and worker until they are stopped or one of them ends."""
    commands = read_procfile(clone.folder / "Procfile")
    release(commands["release"], clone.folder, environment)
    processes = Processes(environment, clone.folder)
    try:
        for name in ("web", "worker"):
            processes.start(name, commands[name])
        wait_until_ready(address, environment, processes.ended)
        if not processes.ended():
            processes.say(READY.format(address=address, var=clone.var))
        while not processes.ended():
            time.sleep(0.2)
        name, code = next(iter(processes.ended().items()))
    finally:
        print("Stopping ...", flush=True)
        processes.stop(STOP_WITHIN)
    raise StackError(
        f"{name} ended by itself (exit code {code}), so everything was stopped. Its last lines above may say why."
    )


def release(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(  # noqa: S602 - the command is the repository's own
            command,
            shell=True,  # like every Procfile runner
            cwd=folder,
            env=environment,
            timeout=RELEASE_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"The release command took more than {RELEASE_WITHIN:.0f} s: {command}") from error
    if done.returncode != 0:
        raise StackError(f"The release command failed, and its lines above say why: {command}")


if __name__ == "__main__":
    sys.exit(main())
