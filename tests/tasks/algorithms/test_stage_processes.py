"""A stage of two processes is one stage: one run in MLflow, one exit code, one sentence, and all end when one ends."""

import shutil
import signal

import psutil
import pytest

from tasks.core.files import digest, read_json
from tests.processes import free_port, wait_until
from tests.project import Project

OUTS = ("models/sft", "reports/sft")
SCRIPT = '''
"""sft, in which process TROUBLED does before step 20 what TROUBLE says."""

import os
import signal
import time

import torch

from tasks.algorithms import sft
from tasks.core.run import run


def train(config, stage):
    steps = stage.steps

    def troubled(total):
        for step in steps(total):
            if step == 20 and os.environ["RANK"] == os.environ.get("TROUBLED"):
                exec(os.environ["TROUBLE"])
            yield step

    stage.steps = troubled
    sft.train(config, stage)


run(sft.SftConfig, train)
'''
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
WAIT = "print('waiting', flush=True)\nwhile True: time.sleep(0.01)"


class Two:
    """A project whose sft is two processes."""

    def __init__(self, project):
        self.project, self.folder = project, project.folder

    def run(self, **environment):
        return self.project.nursery.run(self.folder, "stage.py", REALIGN_CHECKPOINT_SECONDS="0", **environment)

    def start(self, **environment):
        return self.project.nursery.start(self.folder, "stage.py", **environment)

    def copy(self):
        return Two(Project(shutil.copytree(self.folder, self.folder.with_name("copy")), self.project.nursery))

    def outputs(self):
        return {path: digest(self.folder / path) for path in OUTS}

    def status(self):
        (run,) = self.project.runs("sft")
        return run.info.status


@pytest.fixture
def two(random_models, database, nursery, tmp_path):
    shutil.copytree(random_models, tmp_path / "project")
    shutil.copy(database, tmp_path / "project/mlflow.db")
    project = Project(tmp_path / "project", nursery)
    project.set("compute", processes=2)
    project.set("sft", num_steps=40)
    (project.folder / "stage.py").write_text(SCRIPT)
    return Two(project)


def test_it_publishes_once_and_the_same_bytes_twice(two):
    other = two.copy()
    done = two.project.run("sft")
    assert done.code == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert two.status() == "FINISHED"
    assert two.project.runs("sft")[0].data.params["compute.processes"] == "2"
    assert read_json(two.folder / "runs/sft.json")["outs"] == two.outputs()
    assert not (two.folder / ".scratch/sft").exists()
    assert other.project.run("sft").code == 0
    assert two.outputs() == other.outputs()


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_killed_stops_all_and_a_rerun_resumes(two, number):
    untouched = two.copy()
    assert untouched.run().code == 0
    done = two.run(TROUBLED=str(number), TROUBLE=KILL)
    assert done.code == 1
    assert done.stderr == (
        f"sft: process {number + 1} of 2 was ended by SIGKILL, so all were stopped; "
        "run it again, it resumes at its last checkpoint\n"
    )
    done = two.run()
    assert done.code == 0, done.stderr
    assert "sft: resumes at step " in done.stdout
    assert two.outputs() == untouched.outputs()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_to_the_stage_ends_all(two, signum, code):
    running = two.start(TROUBLED="0", TROUBLE=WAIT)
    wait_until(lambda: "waiting" in running.output() or not running.alive())
    processes = psutil.Process(running.pid).children()
    assert len(processes) == 2
    running.send(signum)
    done = running.wait()
    assert done.code == code
    assert done.stderr == ""
    psutil.wait_procs(processes)
    assert two.status() == "KILLED"


def test_processes_started_by_others_meet_where_torch_is_told(two):
    """As by torchrun on two machines: nobody starts or watches anybody here."""
    other = two.copy()
    torchrun = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
                "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    first, second = (two.start(RANK=str(number), **torchrun) for number in range(2))
    assert [first.wait().code, second.wait().code] == [0, 0]
    assert two.status() == "FINISHED"
    assert other.run().code == 0
    assert two.outputs() == other.outputs()


def test_bad_input_is_one_sentence(two):
    two.project.set("sft", batch_size=15)
    done = two.run()
    assert done.code == 1
    assert done.stderr == (
        "sft: params.yaml: `sft.batch_size` (15) must be a multiple of compute.processes (2); change one of them\n"
    )


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("raise MemoryError('no room')", "MemoryError: no room"),
        ("raise torch.OutOfMemoryError('CUDA out of memory. 8 GiB')", "sft: CUDA out of memory; lower a `micro_batch_size`"),
    ],
)
def test_what_only_a_later_process_meets_is_told(two, trouble, said):
    """As where its GPU has less memory than the others."""
    done = two.run(TROUBLED="1", TROUBLE=trouble)
    assert done.code == 1
    assert said in done.stderr
    assert done.stderr.count("Traceback") == (0 if said.startswith("sft") else 1)


def test_a_stage_that_trains_no_model_is_one_process(two):
    assert two.project.run("sft").code == 0
    done = two.project.run("collect_preferences")
    assert done.code == 0, done.stderr
