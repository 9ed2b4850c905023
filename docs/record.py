"""Keep what a finished sweep found: docs/results/<name>.json, from which `python -m docs.build` writes the tables.

    python -m docs.record .scratch/compare/<name>

The commit is that of the sweep's checkouts; the machine is this one, so record a sweep where it ran.
"""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from docs.build import DOCS, write
from docs.results_tables import Result
from flows.engine.environment import environment
from tasks.core.errors import InputError
from tasks.core.files import read_json, write_json
from tasks.core.mlflow_client import tracking_uri
from tasks.core.stage import WRITTEN
from tasks.report.recorded import read_history

CURVES = ("rollout/verifier_mean", "rollout/score_mean")  # the first that a training has recorded
PACKAGES = ("torch", "transformers")


def record(folder: Path) -> Result:
    """Of the folder in which flows/compare.py keeps the sweep."""
    if not (folder / "gains.json").exists():
        raise InputError(f"{folder} holds no finished sweep; `python -m flows.compare` leaves one in .scratch/compare/<name>")
    sweep = read_json(folder / "sweep.json")
    ended = [variant for variant in sweep["variants"] if variant["state"] == "saved"]
    if not ended:
        raise InputError(f"{folder}: no variant ended well, so there is nothing to record")
    return {
        "name": folder.name,
        "keys": sweep["keys"],
        **origin(ended[0]["folder"]),
        "variants": len(sweep["variants"]),
        "ended": len(ended),
        "gains": read_json(folder / "gains.json"),
        "differences": read_json(folder / "differences.json"),
        "takeaways": read_json(folder / "takeaways.json"),
        "models": {variant["name"]: _models(variant) for variant in ended},
        "curves": _curves(ended),
        "stages": _stages(ended),
    }


def origin(checkout: str) -> Result:
    """Of which code, where and when. What every experiment changes in a checkout does not count as a change."""
    here = environment()
    own = [f":!{name}" for name in ("params.yaml", *WRITTEN)]
    return {
        "commit": _git(checkout, "rev-parse", "HEAD").strip(),
        "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"CPU": here["hardware"]["CPU"], "cores": here["hardware"]["cores"], "Python": here["system"]["python"]}
        | {name: here["packages"][name] for name in PACKAGES},
    }


def _git(folder: str, *command: str) -> str:
    return subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, check=True).stdout


def _models(variant: Result) -> Result:
    metrics = read_json(Path(variant["folder"]) / "reports/metrics.json")
    return {name: metrics[name] for name in ("sft", "control", "reward_model", "prompt_oirl") if name in metrics}


def _curves(variants: Sequence[Result]) -> dict[str, Result]:
    """By algorithm, the mean over all its runs in the first listed variant, or in all where none is listed."""
    first = [variant for variant in variants if variant["listed"] == variants[0]["listed"]]
    histories: dict[str, list[list[Result]]] = {}
    for variant in first:
        for folder in sorted((Path(variant["folder"]) / "reports/policy").glob("*-*")):
            histories.setdefault(folder.name.rpartition("-")[0], []).append(read_history(folder))
    found = {}
    for algorithm, runs in histories.items():
        for metric in CURVES:
            points: dict[int, list[float]] = {}
            for row in (row for run in runs for row in run if metric in row):
                points.setdefault(row["step"], []).append(row[metric])
            if len(points) > 1:
                values = [sum(points[step]) / len(points[step]) for step in sorted(points)]
                found[algorithm] = {"metric": metric, "runs": len(runs), "steps": sorted(points), "values": values}
                break
    return found


def _stages(variants: Sequence[Result]) -> dict[str, Result]:
    """Seconds and memory of each stage, of the runs that MLflow knows. What variants share ran once and counts once."""
    found: dict[str, dict[str, Result]] = {}
    for variant in variants:
        for stage, seconds in variant.get("seconds", {}).items():
            run_id = read_json(Path(variant["folder"]) / f"runs/{stage}.json")["run_id"]
            found.setdefault(stage, {})[run_id] = {"seconds": seconds, "peak_memory_mib": _peak_memory(run_id)}
    return {
        stage: {"runs": len(runs)}
        | {key: median([run[key] for run in runs.values()]) for key in ("seconds", "peak_memory_mib")}
        for stage, runs in found.items()
    }


def _peak_memory(run_id: str) -> float:
    from mlflow import MlflowClient

    return float(MlflowClient(tracking_uri()).get_run(run_id).data.metrics["system/peak_memory_mib"])


def main(folder: Path) -> None:
    file = DOCS / f"results/{folder.resolve().name}.json"
    write_json(file, record(folder))
    write()
    print(f"{file.relative_to(DOCS.parent)} is written, and the pages that show it; look at `git diff` and commit both")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("say which sweep: python -m docs.record .scratch/compare/<name>")
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
