"""Given to a worker as --include, this makes its main loop stand still. For test_liveness.py."""

import os
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from worker_tasks.queue.celery_app import app

logger = get_logger(__name__)

STANDS_STILL = 120.0


class Stuck(bootsteps.StartStopStep):
    """Lets the main loop stand still as soon as the file that STUCK_WHEN names is there."""

    requires = ("celery.worker.consumer:Tasks",)

    def start(self, consumer: Any) -> None:
        consumer.timer.call_repeatedly(0.2, self._look)

    def _look(self) -> None:
        if Path(os.environ["STUCK_WHEN"]).exists():
            logger.warning("the main loop stands still")
            time.sleep(STANDS_STILL)


app.steps["consumer"].add(Stuck)
