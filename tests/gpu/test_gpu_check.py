"""`make gpu-check` works but for the GPU: it runs on the CPU, in small, and would say what differs."""

import json

from tests.gpu.check import FEW, apart, differing
from tests.gpu.speed import OPERATIONS


def test_it_runs_to_its_end(nursery, tmp_path):
    done = nursery.run(tmp_path, "tests.gpu.check --device cpu --small")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert found["stages"] == len(FEW)
    training = found["speed"]["training"]
    assert training.keys() == OPERATIONS.keys()
    assert all(figures["tokens/s"] > 0 and figures["share of peak"] > 0 for figures in training.values())


def test_bytes_that_differ_are_named(tmp_path):
    for name, same, other in (("first", "1", "2"), ("second", "1", "3")):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models/same").write_text(same)
        (tmp_path / name / "models/other").write_text(other)
        (tmp_path / name / "models" / name).write_text("")
    assert differing(tmp_path / "first", tmp_path / "second", "models") == ["models/first", "models/other", "models/second"]


def test_figures_outside_the_tolerance_are_named():
    on_cpu = {"sft": {"loss/nll": 2.0, "train/grad_norm": 0.0}, "evaluate": {"sft.accuracy": 0.5}}
    on_device = {"sft": {"loss/nll": 2.015, "train/grad_norm": 0.002}, "evaluate": {}}
    assert apart(on_device, on_cpu) == [
        "sft: train/grad_norm is 0.002, on the CPU 0.0", "evaluate: sft.accuracy is None, on the CPU 0.5",
    ]  # fmt: skip
