"""Configures gunicorn for the web process. It reads $PORT, $WEB_CONCURRENCY and $GUNICORN_CMD_ARGS itself."""

import multiprocessing
import os
import sys
from pathlib import Path

from gunicorn.config import Config
from gunicorn.glogging import Logger

from webapp.support import logs

worker_class = "gthread"
threads = 8
# Seconds for running requests to finish at shutdown; less than the platform's 30 s grace period.
graceful_timeout = 25
timeout = 60
# Keep heartbeats in memory: if the disk stalled, gunicorn would kill healthy workers.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn chooses safe file names
# gunicorn 27 would create the socket in the home folder.
control_socket_disable = True
# The builder keeps its whole form in the URL, so accept the longest request line that gunicorn supports.
limit_request_line = 8190
accesslog = None

#: Seconds that a thread rendering a page may hold the interpreter. With Python's default of 5 ms, a poll that needs the
#: interpreter a few times takes several times as long while somebody pages through a large result.
SWITCH_INTERVAL = 0.0005


class Log(Logger):
    """Sends gunicorn's own messages to the application's log."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        logs.configure_logging()
        if cfg.errorlog == "-":
            self.error_log.handlers.clear()
            self.error_log.propagate = True


logger_class = Log


def post_fork(server: object, worker: object) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Distinguishes the log lines of several processes.
    multiprocessing.current_process().name = f"web-{os.getpid()}"


def post_request(worker: object, request: object, environ: object, response: object) -> None:
    # Only now, because gunicorn may still log an aborted response.
    logs.unbind()
