"""Stages as real processes, without paying their imports each time.

`python -m module` spends seconds on torch, transformers and mlflow. A nursery process imports them once and forks; the child
is a process of its own, in its own folder, and may be killed, starved or refused like any other.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "REALIGN_", "HF_"))} | {
    "PYTHONPATH": str(REPO),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",  # no test asks the internet
    "GIT_CEILING_DIRECTORIES": "/",  # the temporary folder belongs to no repository
}
PATIENCE = 900.0  # seconds: a guard against waiting for ever and nothing else, for a machine may be as busy as it likes
Once = Callable[[str, Callable[[Path], object]], Path]  # the fixture of that name
PORTS: list[socket.socket] = []  # of free_port
NURSERY = """
import atexit, gc, json, os, runpy, sys, traceback
import tasks  # turns telemetry off, as a stage does before anything else
import alembic.command, alembic.config, datasets, great_expectations, matplotlib.pyplot, mlflow
import mlflow.store.tracking.sqlalchemy_workspace_store, pyarrow.dataset, ruamel.yaml, scipy.stats, sklearn.linear_model
import sqlalchemy.orm, torch, transformers
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import tasks.core.run, tasks.rewards.process_reward, tasks.rewards.scorer
import tasks.training.demonstrations, tasks.training.monitor, tasks.training.pairs, tasks.training.prompts

get_checkpoint_conversion_mapping("llama")  # a thousand regular expressions, kept for whoever loads a model
sqlalchemy.orm.configure_mappers()

def become(job):
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    for number, path in enumerate((os.devnull, job["stdout"], job["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.argv = job["command"]
    sys.path.insert(0, job["folder"])
    try:
        if sys.argv[0].endswith(".py"):
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking the interpreter down would cost more than the stage

def watch(job):
    child = os.fork()
    if child == 0:
        become(job)
    with open(job["pid"], "w") as stream:
        stream.write(f"{child}\\n")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(job["code"], "w") as stream:
        stream.write(f"{code}\\n")
    os._exit(0)

gc.freeze()
for line in sys.stdin:
    job = json.loads(line)
    if os.fork() == 0:
        watch(job)
    while True:  # watchers that are done
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
"""

SERVER = """
import sys
import uvicorn
from mlflow.server.fastapi_app import app
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


@dataclass
class Done:
    """How a process ended. code: its exit code, or minus the signal that killed it."""

    code: int
    stdout: str
    stderr: str


class Running:
    """A started process."""

    def __init__(self, papers: Path):
        self.papers = papers
        self.pid = int(self._read("pid"))

    def output(self) -> str:
        """What it has printed so far."""
        return (self.papers / "stdout").read_text()

    def alive(self) -> bool:
        return not (self.papers / "code").exists()

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> Done:
        code = int(self._read("code"))
        return Done(code, self.output(), (self.papers / "stderr").read_text())

    def _read(self, name: str) -> str:
        """The line the watcher writes."""
        file = self.papers / name
        wait_until(lambda: file.exists() and file.read_text().endswith("\n"), every=0.002)
        return file.read_text()


class Nursery:
    """Starts processes; any number may run at a time."""

    def __init__(self) -> None:
        self.papers = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, text=True, env=ENVIRONMENT)

    def start(self, folder: Path, command: str, **environment: str) -> Running:
        """command: `tasks.algorithms.ppo --seed 0`, or `script.py`."""
        papers = Path(tempfile.mkdtemp(dir=self.papers.name))
        files = {name: str(papers / name) for name in ("stdout", "stderr", "pid", "code")}
        (papers / "stdout").touch()
        (papers / "stderr").touch()
        job = {"folder": str(folder), "command": command.split(), "environment": environment, **files}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Running(papers)

    def run(self, folder: Path, command: str, **environment: str) -> Done:
        return self.start(folder, command, **environment).wait()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.papers.cleanup()


class TrackingServer:
    """What `mlflow server` starts, as a process of its own; stop() and start() keep its port and its data."""

    def __init__(self, folder: Path, database: Path, nursery: Nursery):
        shutil.copy(database, folder / "server.db")
        (folder / "server.py").write_text(SERVER)
        self.port = free_port()
        self.uri, self.folder, self.nursery = f"http://127.0.0.1:{self.port}", folder, nursery
        self.start()

    def start(self) -> None:
        from mlflow.server import constants

        environment = {
            constants.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{self.folder / 'server.db'}",
            constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: str(self.folder / "artifacts"),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        }
        self.running = self.nursery.start(self.folder, f"server.py {self.port}", **environment)
        while not self.answers():
            assert self.running.alive(), self.running.wait().stderr
            time.sleep(0.02)

    def stop(self) -> None:
        self.running.send(signal.SIGKILL)
        assert self.running.wait().code == -signal.SIGKILL
        assert not self.answers()

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=PATIENCE).status == 200
        except OSError:
            return False


def wait_until(condition: Callable[[], Any], every: float = 0.05) -> Any:
    """What the condition is once it is true. every: seconds between two looks."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)
    return found


def free_port() -> int:
    """A port that nobody else is given while the tests run.

    The socket stays bound and never listens, so a server (all of them set SO_REUSEADDR) may, and may again after a restart.
    """
    PORTS.append(socket.socket())
    PORTS[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    PORTS[-1].bind(("127.0.0.1", 0))
    return PORTS[-1].getsockname()[1]


def python(folder: Path, *arguments: str, **environment: str) -> Done:
    """The plain way, with its start-up: `python <arguments>` in the folder."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=PATIENCE)
    return Done(done.returncode, done.stdout, done.stderr)
