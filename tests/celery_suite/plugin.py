"""A pytest plugin for Celery's own suite: logs outcomes as they come, and puts our application under test."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing import app as testing_app

from worker_tasks.queue import celery_app
from worker_tasks.queue.claim import ClaimedTask


class WholeApplication(celery_app.RecordingCelery):
    """Our application with all its settings and steps, plus the suite's tasks."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, task_cls=ClaimedTask, **options)
        self.add_defaults(self._settings)
        for blueprint, steps in celery_app.app.steps.items():
            self.steps[blueprint] |= steps

    def _settings(self) -> dict[str, Any]:
        ours = celery_app.celery_settings()
        # A worker on the command line sets the same timeout.
        patient = {"socket_timeout": celery_app.WORKER_SOCKET_TIMEOUT}
        return ours | {"broker_transport_options": ours["broker_transport_options"] | patient}


def pytest_configure(config: pytest.Config) -> None:
    if os.environ["CELERY_SUITE_SIDE"] == "ours":
        testing_app.Celery = WholeApplication


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        with Path(os.environ["CELERY_SUITE_LOG"]).open("a") as log:
            log.write(json.dumps([report.nodeid, report.outcome]) + "\n")
