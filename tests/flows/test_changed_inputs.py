"""Inputs that change while a stage runs: neither dvc.lock nor the run cache says that the old outputs belong to the new."""

import subprocess
import sys

from tests.flows.toy import Project
from tests.processes import wait_until


def test_params_and_code_changed_mid_run_are_never_recorded(finished: Project, server: str) -> None:
    """work@a is no stage of this project's making: only the flow's look can tell."""
    lock = (finished.folder / "dvc.lock").read_text()
    finished.set(work__a__scale=9)
    before = len(finished.journal())
    with finished.hold("work@a"):
        process = finished.start("--until", "work@a", PREFECT_API_URL=server)
        wait_until(lambda: len(finished.journal()) > before or process.poll() is not None)
        finished.set(work__a__scale=14)
    flow = finished.end(process)
    assert flow.code == 1, flow.out
    assert "params work.a.scale 9 → 14 changed while it ran" in flow.err
    assert "Traceback" not in flow.out + flow.err
    assert (finished.folder / "dvc.lock").read_text() == lock
    status = [sys.executable, "-m", "dvc", "status", "work@a"]
    told = subprocess.run(status, cwd=finished.folder, env=finished.environment, capture_output=True, text=True)
    assert "modified:           work.a" in told.stdout
    assert finished.align("--until", "work@a", PREFECT_API_URL=server).happened()["work@a"] == "ran"
    assert (finished.folder / "out/made/a/result.json").read_text() == "14"
