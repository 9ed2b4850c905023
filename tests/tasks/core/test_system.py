"""Where it is not Linux, every command ends with one sentence."""

from pathlib import Path

import pytest

from tests.processes import REPO, python

SENTENCE = "realign runs on Linux only; this is darwin; use a Linux machine or a container\n"
PRETEND = "import sys; sys.platform = 'darwin'"
STAGE = f"from tasks.core.config import RuntimeConfig; from tasks.core.run import run; {PRETEND}; run(RuntimeConfig, print)"


@pytest.mark.parametrize(
    ("code", "says"), [(f"{PRETEND}; import flows", SENTENCE), (STAGE, f"runtime: {SENTENCE}")], ids=["flow", "stage"]
)
def test_another_system_is_refused(code: str, says: str, tmp_path: Path) -> None:
    done = python(tmp_path, "-c", code, PYTHONPATH=str(REPO))
    assert (done.code, done.stdout, done.stderr) == (1, "", says)
