"""How gunicorn serves the web process; it reads $PORT, $WEB_CONCURRENCY and $GUNICORN_CMD_ARGS itself."""

import multiprocessing
import os
import sys
from pathlib import Path

from gunicorn.config import Config
from gunicorn.glogging import Logger

from webapp.support import logs

worker_class = "gthread"
threads = 8
# Requests that run when the process is told to stop may finish; under the platform's grace of 30 s.
graceful_timeout = 25
timeout = 60
# Heartbeats in memory: on a disk that stalls, healthy workers would be killed.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn names its files itself
# gunicorn 27 would open one in the home folder.
control_socket_disable = True
# The builder's whole form is in its address: the longest that gunicorn can be told to take.
limit_request_line = 8190
accesslog = None

#: Seconds that a thread which renders a page may keep the others waiting. With Python's own 5 ms, a poll that needs the
#: interpreter a few times takes several times as long as soon as somebody turns the pages of a large result.
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
    # Tells the log lines of several processes apart.
    multiprocessing.current_process().name = f"web-{os.getpid()}"


def post_request(worker: object, request: object, environ: object, response: object) -> None:
    # Not earlier: gunicorn still logs responses that broke off.
    logs.unbind()
