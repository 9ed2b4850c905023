"""The whole pipeline, small, as its users run it: `dvc repro`, and the Prefect flow in a second checkout.

Both must leave the same bytes; a second run must do nothing; one changed number must run exactly what depends on it, and
putting it back must bring the old outputs back without training. Where many stages run, they fork; where an algorithm is
added, each is an interpreter of its own, and must leave the bytes that a forked one leaves.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.config import read_params
from tasks.core.files import read_json
from tests.processes import ENVIRONMENT, PATIENCE, Done, Nursery
from tests.smoke.checkout import SMALL, assign, checkout

BIN = Path(sys.executable).parent
STAGES = {
    "prepare_data", "validate_data", "base_model", "sft", "judge_model", "collect_preferences", "validate_preferences",
    "reward_model",
    "policy@ppo-0", "policy@grpo-0", "policy@dpo-0", "policy@raft-0",
    "collect_prompt_log", "validate_prompt_log", "prompt_oirl", "prompt_oirl_study", "propose_prompts", "evaluate", "imitation",
    "report", "report_prompts",
}  # fmt: skip


def execute(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = ENVIRONMENT | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "DVC_NO_ANALYTICS": "1",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def small_checkout(folder: Path) -> Path:
    checkout(folder)
    assign(folder, SMALL.split())
    return folder


def ran(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)'", output, flags=re.MULTILINE))


def lock(folder: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(folder / "dvc.lock")["stages"]


def hashes(folder: Path) -> dict[str, str]:
    """Of every output but the receipts, which name the MLflow run and are read by no stage."""
    outs = [out for stage in lock(folder).values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if not out["path"].startswith("runs/")}


@pytest.fixture(scope="module")
def repro(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = small_checkout(tmp_path_factory.mktemp("repro"))
    return folder, forked_repro(nursery, folder)


def forked_repro(nursery: Nursery, folder: Path) -> Done:
    return nursery.run(folder, "tests.smoke.forked_dvc repro", DVC_NO_ANALYTICS="1")


def test_dvc_repro_alone_runs_and_records_everything(repro: tuple[Path, Done]) -> None:
    folder, done = repro
    assert done.code == 0, done.stderr
    assert ran(done.stdout) == STAGES == lock(folder).keys()
    receipts = {path.stem for path in (folder / "runs").glob("*.json")}
    assert receipts == STAGES


def test_metrics_show_lists_what_was_promised(repro: tuple[Path, Done]) -> None:
    folder, _ = repro
    shown = json.loads(execute(folder, "dvc", "metrics", "show", "--json").stdout)[""]["data"]["reports/summary.json"]["data"]
    metrics = read_json(folder / "reports/metrics.json")
    policies = {f"policy.{name}.0": metrics["policy"][name]["0"]["sampled_accuracy"] for name in ("ppo", "grpo", "dpo", "raft")}
    assert shown == policies | {
        "sft": metrics["sft"]["sampled_accuracy"],
        "reward_model": metrics["reward_model"]["accuracy"],
        "prompt_oirl": metrics["prompt_oirl"]["success"],
    }


def test_a_second_repro_runs_nothing(repro: tuple[Path, Done]) -> None:
    folder, _ = repro
    again = execute(folder, "dvc", "repro")
    assert again.returncode == 0
    assert ran(again.stdout) == set()


def test_one_number_runs_what_depends_on_it_and_putting_it_back_restores(repro: tuple[Path, Done], nursery: Nursery) -> None:
    folder, _ = repro
    before, rate = hashes(folder), read_params(folder / "params.yaml")["policy"]["grpo"]["learning_rate"]
    assign(folder, ["policy.grpo.learning_rate=1.0e-3"])
    changed = forked_repro(nursery, folder)
    assert ran(changed.stdout) == {"policy@grpo-0", "evaluate", "report"}
    assert hashes(folder)["models/policy/grpo-0"] != before["models/policy/grpo-0"]
    assign(folder, [f"policy.grpo.learning_rate={rate}"])
    back = execute(folder, "dvc", "repro")
    assert ran(back.stdout) == set()
    assert hashes(folder) == before


def test_an_algorithm_costs_one_file_one_namespace_and_one_word(repro: tuple[Path, Done], tmp_path: Path) -> None:
    folder = shutil.copytree(repro[0], tmp_path / "copy")
    algorithms = folder / "tasks/algorithms"
    (algorithms / "toy.py").write_text((algorithms / "raft.py").read_text().replace("policy.raft", "policy.toy"))
    params = read_params(folder / "params.yaml")
    params["policy"]["toy"] = params["policy"]["raft"]
    params["policy"]["algorithms"].append("toy")
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)
    added = execute(folder, "dvc", "repro")
    assert added.returncode == 0, added.stderr
    assert ran(added.stdout) == {"policy@toy-0", "evaluate", "report"}
    assert "policy.toy.0" in execute(folder, "dvc", "metrics", "show", "--md").stdout
    assert hashes(folder)["models/policy/toy-0"] == hashes(folder)["models/policy/raft-0"]


def test_the_flow_in_another_checkout_leaves_the_same_bytes(repro: tuple[Path, Done], tmp_path: Path) -> None:
    folder, _ = repro
    other = small_checkout(tmp_path)
    done = execute(other, sys.executable, "-m", "flows.align")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ours, theirs = hashes(folder), hashes(other)
    assert len(ours) > 30
    assert ours == theirs
