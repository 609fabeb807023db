"""A module for a worker's --include that blocks its main loop. For test_liveness.py."""

import os
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from worker_tasks.queue.celery_app import app

logger = get_logger(__name__)

BLOCKED_SECONDS = 120.0


class Blocker(bootsteps.StartStopStep):
    """Blocks the main loop as soon as the file named by STUCK_WHEN exists."""

    requires = ("celery.worker.consumer:Tasks",)

    def start(self, consumer: Any) -> None:
        consumer.timer.call_repeatedly(0.2, self._block_if_told)

    def _block_if_told(self) -> None:
        if Path(os.environ["STUCK_WHEN"]).exists():
            logger.warning("the main loop is blocked")
            time.sleep(BLOCKED_SECONDS)


app.steps["consumer"].add(Blocker)
