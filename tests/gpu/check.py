"""Does it run on this GPU, twice to the same bytes, as on the CPU, and how fast? `make gpu-check`: no network, no MLflow.

First every stage of tests/project.py that trains or samples, in few steps. It runs twice on the device, and all outputs must
have the same bytes. Then each runs on the CPU from what the device had written before it, and the figures of its first step
must agree. Then tests/gpu/speed.py. The exit code is 1 if anything differs.

    python -m tests.gpu.check [--device cuda] [--small] [--record]

--small: a few stages and a tiny model, to try this file. --record: the figures go to docs/results/gpu/<device>.json.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.files import files_of, write_json
from tasks.core.run import make_deterministic
from tasks.core.stage import git_tags
from tests.gpu.speed import SMOLLM2, TINY, Size, measure
from tests.gpu.stages import Unrecorded, make_project, set_device, work
from tests.processes import REPO
from tests.project import PARAMS, STAGES

EVERY = [name for name in STAGES if name != "prompt_oirl_study"]  # which computes without torch
FEW = ["base_model", "sft", "collect_preferences", "reward_model", "policy@ppo-0"]
NUM_STEPS = 4  # at most, of each stage
LENGTHS = ("num_steps", "num_iterations", "ensemble_steps", "sft_steps")
RELATIVE, ABSOLUTE = 1e-2, 1e-3  # between device and CPU; a first step may hold several updates
Figures = dict[str, dict[str, float]]  # by stage and name


def check(folder: Path, device: str, small: bool) -> dict[str, Any]:
    stages = FEW if small else EVERY
    # Those that sample need a model that says something.
    changes = shortened(PARAMS) | ({} if small else {name: PARAMS[name] for name in ("base_model", "sft")})
    first, second = (make_project(folder / name, device, changes) for name in ("first", "second"))
    on_device = {name: figures_of(work(first, name)) for name in stages}
    for name in stages:
        work(second, name)
    unequal = differing(first, second, "data", "models", "reports", "runs")
    set_device(first, "cpu", changes)
    on_cpu = {name: figures_of(work(first, name, publish=False)) for name in stages}
    size = Size(TINY, repeated=2, rows=4, steps=2, matrix=256) if small else Size(SMOLLM2, 16, 64, 16, 8192)
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        "commit": git_tags(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "stages": len(stages),
        "outputs that differ between two runs": unequal,
        "figures apart from the CPU's": apart(on_device, on_cpu),
        "speed": measure(folder / "speed", device, size),
    }


def shortened(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: shortened(value) if isinstance(value, dict) else min(value, NUM_STEPS) if key in LENGTHS else value
        for key, value in values.items()
    }


def figures_of(stage: Unrecorded) -> dict[str, float]:
    """Of the first step; of a stage without steps, those it ends with."""
    return stage.history[0] if stage.history else stage.metrics


def apart(on_device: Figures, on_cpu: Figures) -> list[str]:
    """What is not the same within the tolerance, as lines to read."""
    return [
        f"{stage}: {name} is {on_device[stage].get(name)}, on the CPU {value}"
        for stage, figures in on_cpu.items()
        for name, value in figures.items()
        if not math.isclose(on_device[stage].get(name, math.nan), value, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    ]


def differing(first: Path, second: Path, *parts: str) -> list[str]:
    """Files below these parts of two folders that are not the same, or are in one alone."""
    one, other = (
        {file.relative_to(folder).as_posix(): file.read_bytes() for part in parts for file in files_of(folder / part)}
        for folder in (first, second)
    )
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args(arguments)
    make_deterministic(RuntimeConfig(seed=0, threads=1, device=asked.device))
    with tempfile.TemporaryDirectory() as folder:
        found = check(Path(folder), asked.device, asked.small)
    print(json.dumps(found, indent=2))
    if asked.record:
        file = REPO / f"docs/results/gpu/{found['device'].replace(' ', '-')}.json"
        write_json(file, found)
        print(f"{file.relative_to(REPO)} is written; commit it")
    return int(any(found[name] for name in found if name.startswith(("outputs", "figures"))))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(str(error))
