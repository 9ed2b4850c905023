"""How far rounding moves SFT: trained again from base weights that differ in their last bits, and with the plainest kernels.

    python -m tests.bench.rounding .scratch/compare/default [--record]      # some 15 minutes for three seeds on two cores

The argument is the folder of a sweep over seeds that has ended. SFT as it is comes from there; each other is trained in a copy
and measured by the project's own evaluation. --record keeps the figures in docs/results/bench.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from docs.build import DOCS, write
from docs.record import origin
from tasks.core.files import read_json, write_json
from tests.smoke.checkout import assign

AS_IT_IS, JITTERED, PLAINEST = "as it is", "jittered base", "plainest kernels"
JITTER = 1e-7  # of each base weight, times N(0, 1)
NEEDED = ("tasks", "flows", "data", "models", "reports", "runs", "params.yaml", "dvc.yaml", "dvc.lock")


def measure(checkout: Path, way: str) -> dict[str, float]:
    """accuracy, greedy, and sampled_accuracy of the SFT model on the test prompts."""
    if way == AS_IT_IS:
        return figures(checkout)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in NEEDED:
            (shutil.copytree if (checkout / name).is_dir() else shutil.copyfile)(checkout / name, copy / name)
        subprocess.run(["chmod", "-R", "u+w", scratch], check=True)  # DVC links outputs read-only
        assign(copy, ["policy.algorithms=[]"])
        if way == JITTERED:
            jitter(copy / "models/base/model.safetensors")
        kernels = {"ATEN_CPU_CAPABILITY": "default"} if way == PLAINEST else {}
        own = {"MLFLOW_TRACKING_URI": f"sqlite:///{copy}/mlflow.db", "OMP_NUM_THREADS": "1"}
        for stage, environment in (("tasks.algorithms.sft", own | kernels), ("tasks.evaluation.evaluate", own)):
            subprocess.run([sys.executable, "-m", stage], cwd=copy, env=os.environ | environment, stdout=sys.stderr, check=True)
        return figures(copy)


def figures(checkout: Path) -> dict[str, float]:
    sft = read_json(checkout / "reports/metrics.json")["sft"]
    return {key: sft[key] for key in ("accuracy", "sampled_accuracy")}


def jitter(file: Path) -> None:
    noise = torch.Generator().manual_seed(1)
    weights = {
        name: (values * (1 + JITTER * torch.randn(values.shape, generator=noise))).clone()
        for name, values in load_file(file).items()
    }
    file.unlink()
    save_file(weights, file, {"format": "pt"})


def main(sweep: Path, record: bool) -> None:
    checkouts = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    rows: list[dict[str, Any]] = [{"variant": folder.name} for folder in checkouts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for way in (AS_IT_IS, JITTERED, PLAINEST):
            for row, found in zip(rows, pool.map(partial(measure, way=way), checkouts), strict=True):
                row[way] = found
                print(f"{row['variant']}, {way}: {100 * found['accuracy']:.1f} % greedy", flush=True)
    if record:
        write_json(DOCS / "results/bench/rounding.json", origin(str(checkouts[0])) | {"rows": rows})
        write()
        print("docs/results/bench/rounding.json is written, and the page that shows it; look at `git diff` and commit both")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--record" in sys.argv[2:])
