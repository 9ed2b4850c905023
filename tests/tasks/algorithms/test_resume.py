"""Killed in the middle and run again, every long stage writes the same bytes as the run that nothing disturbed.

That the resumed run of another process equals the first also shows that a run is a function of its inputs.
"""

import signal
import time

import pytest

from tasks.core.files import digest
from tests.project import LONG_STAGES


@pytest.mark.parametrize("stage", LONG_STAGES)
def test_kill_and_resume(project, tmp_path, stage):
    """SIGKILL as soon as there is a checkpoint."""
    again = project.copy(tmp_path / "project")
    outputs = project.receipt(stage)["outs"]
    running = again.start(stage, REALIGN_CHECKPOINT_SECONDS="0")
    while not list(again.folder.glob(f".scratch/{stage}/*/checkpoint.pt")):
        assert running.alive(), running.wait().stderr
        time.sleep(0.001)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert not (again.folder / f"runs/{stage}.json").exists()

    done = again.run(stage)
    assert done.code == 0, done.stderr
    assert f"{stage}: resumes at step" in done.stdout
    assert {out: digest(again.folder / out) for out in outputs} == outputs
    assert not (again.folder / f".scratch/{stage}").exists()
