"""What ends with a process that somebody else has started."""

import signal
import subprocess
import sys

from tests.processes import PATIENCE, REPO

FOLLOWER = """
import sys, time
from flows.engine.lifetime import follow
follow(int(sys.argv[1]))
print("follows", flush=True)
time.sleep(900)
"""


def test_a_process_ends_with_one_whose_exit_code_nobody_has_asked_for() -> None:
    """A killed worker stays a zombie where what has started it does not wait for it; its flows must not go on."""
    leader = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    command = [sys.executable, "-c", FOLLOWER, str(leader.pid)]
    follower = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert follower.stdout
    assert follower.stdout.readline() == "follows\n"
    leader.kill()
    assert follower.wait(timeout=PATIENCE) == -signal.SIGTERM
    leader.wait()
