"""A short run of `python -m tests.soak` with a fixed seed, in about two minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

#: The soak submits work for 1.5 minutes, and needs about two in total. This seed draws most kinds of faults.
MINUTES, SEED = "1.5", "202"
#: MongoDB carried out the write, but its answer was lost. docs/reliability.md excludes this from the promises.
NOT_PROMISED = "refused with 503, but accepted"


@pytest.mark.timeout(480)
def test_random_faults_lose_duplicate_and_corrupt_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", MINUTES, "--seed", SEED, "--folder", str(tmp_path)]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=450, check=False)
    assert run.stdout, run.stderr
    summary = json.loads(run.stdout)
    assert summary["defects_by_kind"].keys() <= {NOT_PROMISED}, json.dumps(summary["examples"], indent=1)
    assert run.returncode == (1 if summary["defects_by_kind"] else 0), run.stderr
    assert summary["recounted_results"] > 0
    assert sum(summary["faults"].values()) > 3
