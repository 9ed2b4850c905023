"""What several processes of a stage refuse, each in one sentence."""

import pytest
import torch

from tasks.algorithms.base_model import BaseModelConfig
from tasks.algorithms.ppo import PpoConfig
from tasks.algorithms.raft import RaftConfig
from tasks.core.config import lookup
from tasks.core.errors import InputError
from tasks.core.launcher import run_together
from tasks.core.processes import STOPPED, Stopped, check_sizes, check_world, collective, joined, processes_of
from tests.project import PARAMS, write_params


@pytest.mark.parametrize(
    ("config_class", "changed", "count", "sentence"),
    [
        (BaseModelConfig, {"batch_size": 9}, 2, "`base_model.batch_size` (9) must be a multiple of compute.processes (2)"),
        (
            PpoConfig,
            {"micro_batch_size": 4},
            8,
            "`policy.ppo.micro_batch_size` (4) must be a multiple of compute.processes (8)",
        ),
        (RaftConfig, {}, 3, "`policy.raft.rollout_batch_size / group_size` (8) must be a multiple of compute.processes (3)"),
    ],
)
def test_processes_that_do_not_divide_a_size(config_class, changed, count, sentence):
    config = config_class.model_validate(lookup(PARAMS, config_class.namespace) | changed)
    check_sizes(config, 1)
    with pytest.raises(InputError) as refused:
        check_sizes(config, count)
    assert str(refused.value) == f"params.yaml: {sentence}; change one of them"


@pytest.mark.parametrize(
    ("device", "started", "sentence"),
    [
        ("cpu", "3", "params.yaml: `compute.processes` of this stage is 2, but WORLD_SIZE is 3; make them equal"),
        ("cuda", "2", "params.yaml: `compute.processes`: 2 processes need a GPU each, and the stage has 1; write 1"),
        ("cuda:1", "2", "params.yaml: `runtime.device` is cuda:1, but 2 processes need a GPU each; write cuda"),
    ],
)
def test_processes_that_are_not_there_or_have_no_gpu(monkeypatch, device, started, sentence):
    monkeypatch.setenv("WORLD_SIZE", started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError) as refused:
        check_world(2, device)
    assert str(refused.value) == sentence


def test_one_process_under_torchrun_is_refused(monkeypatch):
    """Each would take itself for the stage, and write its outputs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="but WORLD_SIZE is 2; make them equal"), joined(1, "cpu"):
        pass


def test_processes_that_lose_each_other_are_one_sentence(capfd):
    def work():
        with collective():
            raise RuntimeError("no route\nto host")

    assert run_together("sft", 2, lambda: ended(work)) == 1
    assert capfd.readouterr().err == "sft: its 2 processes ended (lost the other processes: no route to host); run it again\n"


def ended(work):
    try:
        work()
    except Stopped:
        return STOPPED


def test_stages_that_train_are_as_many_processes_as_the_params_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, PARAMS | {"compute": PARAMS["compute"] | {"processes": 2}})
    stages = ("sft", "policy@ppo-0", "prepare_data", "evaluate", "collect_preferences")
    assert [processes_of(stage) for stage in stages] == [2, 2, 1, 1, 1]
    write_params(tmp_path, PARAMS | {"compute": PARAMS["compute"] | {"processes": "two"}})
    assert processes_of("sft") == 1  # which refuses the value
