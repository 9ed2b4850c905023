"""A stage of two processes is one stage: one run in MLflow, one exit code, one sentence, and all end when one ends."""

import shutil
import signal

import psutil
import pytest

from tasks.core.files import digest, read_json
from tests.processes import free_port, wait_until
from tests.project import Project

OUTS = ("models/sft", "reports/sft")


@pytest.fixture
def two(random_models, database, nursery, tmp_path):
    """A project whose sft is two processes."""
    shutil.copytree(random_models, tmp_path / "project")
    shutil.copy(database, tmp_path / "project/mlflow.db")
    project = Project(tmp_path / "project", nursery)
    project.set("compute", processes=2)
    project.set("sft", num_steps=60)
    return project


def outputs(project):
    return {path: digest(project.folder / path) for path in OUTS}


def begun(project):
    """The stage, with a checkpoint, and its processes in the order of their ranks."""
    running = project.start("sft", REALIGN_CHECKPOINT_SECONDS="0")
    wait_until(lambda: list(project.folder.glob(".scratch/sft/*/checkpoint.pt")) or not running.alive())
    processes = sorted(psutil.Process(running.pid).children(), key=lambda process: process.pid)
    assert len(processes) == 2
    return running, processes


def all_gone(processes):
    psutil.wait_procs(processes)
    return not any(process.is_running() for process in processes)


def test_it_publishes_once_and_the_same_bytes_twice(two):
    done = two.run("sft")
    assert done.code == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    (run,) = two.runs("sft")
    assert run.info.status == "FINISHED"
    assert run.data.params["compute.processes"] == "2"
    assert read_json(two.folder / "runs/sft.json")["outs"] == outputs(two)
    assert not (two.folder / ".scratch/sft").exists()
    first = outputs(two)
    shutil.rmtree(two.folder / "models/sft")
    assert two.run("sft").code == 0
    assert outputs(two) == first


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_killed_stops_all_and_a_rerun_resumes(two, number):
    untouched = Project(shutil.copytree(two.folder, two.folder.with_name("untouched")), two.nursery)
    assert untouched.run("sft").code == 0
    running, processes = begun(two)
    processes[number].send_signal(signal.SIGKILL)
    done = running.wait()
    assert done.code == 1
    assert done.stderr == (
        f"sft: process {number + 1} of 2 was ended by SIGKILL, so all were stopped; "
        "run it again, it resumes at its last checkpoint\n"
    )
    assert all_gone(processes)
    assert not (two.folder / "reports/sft").exists()
    done = two.run("sft")
    assert done.code == 0, done.stderr
    assert "sft: resumes at step" in done.stdout
    assert outputs(two) == outputs(untouched)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_to_the_stage_ends_all(two, signum, code):
    running, processes = begun(two)
    running.send(signum)
    done = running.wait()
    assert done.code == code
    assert done.stderr == ""
    assert all_gone(processes)
    (run,) = two.runs("sft")
    assert run.info.status == "KILLED"


def test_processes_started_by_others_meet_where_torch_is_told(two):
    """As by torchrun on two machines: nobody starts or watches anybody here."""
    torchrun = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
                "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    first, second = (two.start("sft", RANK=str(number), **torchrun) for number in range(2))
    assert [first.wait().code, second.wait().code] == [0, 0]
    (run,) = two.runs("sft")
    assert run.info.status == "FINISHED"
    alike = outputs(two)
    shutil.rmtree(two.folder / "models/sft")
    assert two.run("sft").code == 0
    assert outputs(two) == alike


def test_bad_input_is_one_sentence(two):
    two.set("sft", batch_size=15)
    done = two.run("sft")
    assert done.code == 1
    assert done.stderr == (
        "sft: params.yaml: `sft.batch_size` (15) must be a multiple of compute.processes (2); change one of them\n"
    )


def test_what_only_a_later_process_meets_is_told(two):
    """As where its GPU has less memory than the others."""
    (two.folder / "trouble.py").write_text(
        "import os\n"
        "from tasks.algorithms import sft\n"
        "from tasks.core.run import run\n"
        "def train(config, stage):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise MemoryError('no room')\n"
        "    sft.train(config, stage)\n"
        "run(sft.SftConfig, train)\n"
    )
    done = two.nursery.run(two.folder, "trouble.py")
    assert done.code == 1
    assert "MemoryError: no room" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_a_stage_that_trains_no_model_is_one_process(two):
    assert two.run("sft").code == 0
    done = two.run("collect_preferences")
    assert done.code == 0, done.stderr
