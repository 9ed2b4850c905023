"""Variants of data/variants, from real data to the report page, by their params alone; only the sizes are cut here."""

import json
from pathlib import Path

import pytest

from tasks.core.config import read_params
from tests.processes import Nursery
from tests.smoke.checkout import SMALL, assign, checkout, variants

STAGES = """
tasks.data.prepare
tasks.data.validate data
tasks.algorithms.base_model
tasks.algorithms.sft
tasks.algorithms.judge_model
tasks.feedback.{collect_preferences[source]}.collect
tasks.data.validate preferences
tasks.algorithms.reward_model
tasks.algorithms.ppo --seed 0
tasks.algorithms.grpo --seed 0
tasks.algorithms.dpo --seed 0
tasks.algorithms.raft --seed 0
tasks.prompt_oirl.collect
tasks.data.validate prompt_log
tasks.prompt_oirl.fit
tasks.prompt_oirl.study
tasks.prompt_oirl.propose
tasks.report.prompt_oirl.page
tasks.evaluation.evaluate
tasks.tabular.study
tasks.report.run.page
""".strip().splitlines()


PAID_BY_FUNCTIONS = """
sft.num_steps=60
collect_preferences.num_prompts=96 collect_preferences.held_out_prompts=24
reward_model.num_steps=2 reward_model.batch_size=8
policy.ppo.num_steps=8 policy.ppo.rollout_batch_size=32 policy.ppo.batch_size=32 policy.ppo.micro_batch_size=32
policy.grpo.num_steps=8 policy.grpo.rollout_batch_size=32 policy.grpo.batch_size=32 policy.grpo.micro_batch_size=32
policy.raft.num_steps=8 policy.raft.rollout_batch_size=64
policy.dpo.num_steps=12 policy.dpo.batch_size=32
"""


def test_a_pretrained_model_gains_what_functions_of_its_text_pay_for(
    tmp_path: Path, nursery: Nursery, database: Path, shared: Path
) -> None:
    """No answers, no reward model: length and mood, from samples or from pairs; and the text stays likely to the reference."""
    folder = checkout(tmp_path)
    assign(folder, variants()["openings"])
    assign(folder, PAID_BY_FUNCTIONS.split())
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    for stage in stages(folder)[: STAGES.index("tasks.algorithms.raft --seed 0") + 1]:
        done = nursery.run(folder, stage, REALIGN_SHARED=str(shared))
        assert done.code == 0, f"{stage}: {done.stderr}"
    for algorithm in ("ppo", "grpo", "dpo", "raft"):
        history = json.loads((folder / f"reports/policy/{algorithm}-0/history.json").read_text())
        seen = [row for row in history if "rollout/score_mean" in row]
        first, last = (mean(rows, "rollout/score_mean") for rows in (seen[:2], seen[-3:]))
        if algorithm == "dpo":  # so few pairs teach it their order; 64 probed completions would not show more
            assert mean(history[-3:], "train/margin") > 0.1
        else:
            assert last > first + 0.05, algorithm
        first, last = (mean(rows, "rollout/ref_perplexity") for rows in (seen[:2], seen[-3:]))
        assert last < 2 * first, algorithm


def test_a_judge_trained_on_the_way_takes_the_annotators_place(tmp_path: Path, nursery: Nursery, database: Path) -> None:
    """RLAIF from data to report, by the params of data/variants/feedback.yaml."""
    folder = checkout(tmp_path)
    assign(folder, SMALL.split())
    assign(folder, variants()["rlaif"])
    assign(folder, ["judge_model.num_steps=6", "judge_model.batch_size=8", "collect_preferences.num_prompts=48"])
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    for stage in stages(folder):
        if not stage.startswith(("tasks.algorithms.ppo", "tasks.algorithms.dpo", "tasks.algorithms.raft")):
            done = nursery.run(folder, stage)
            assert done.code == 0, f"{stage}: {done.stderr}"
    figures = json.loads((folder / "reports/collect_preferences/metrics.json").read_text())
    assert figures["judge/questions"] >= figures["pairs"] > 20
    assert json.loads((folder / "models/judge_model/supervision.json").read_text())["prompts"] > 20
    assert set(json.loads((folder / "reports/metrics.json").read_text())["policy"]) == {"grpo"}
    assert "The pairs are those of an AI judge" in (folder / "reports/index.html").read_text()


def stages(folder: Path) -> list[str]:
    """Those of dvc.yaml with the params of this folder."""
    params = read_params(folder / "params.yaml")
    return [stage.format_map(params) for stage in STAGES]


def mean(rows: list[dict[str, float]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


@pytest.mark.parametrize("name", ["svamp", "gsm8k", "mawps", "stories"])
def test_variant_runs_from_data_to_report(name: str, tmp_path: Path, nursery: Nursery, database: Path, shared: Path) -> None:
    settings = variants()[name]
    folder = checkout(tmp_path)
    assign(folder, SMALL.split())
    assign(folder, settings)
    if name == "mawps":
        assign(folder, ["prepare_data.max_rows=null"])  # its 13 repeated problems are spread over the whole
    if name in ("gsm8k", "stories"):  # whose longer completions are left out
        assign(folder, ["task.max_new_tokens=64"])
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    for stage in stages(folder):
        done = nursery.run(folder, stage, REALIGN_SHARED=str(shared))
        assert done.code == 0, f"{stage}: {done.stderr}"
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert metrics["contaminated"] == (name == "mawps")
    assert set(metrics["policy"]) == {"ppo", "grpo", "dpo", "raft"}
    assert 0 <= metrics["policy"]["ppo"]["0"]["win_rate"] <= 1
    assert (folder / "reports/index.html").stat().st_size > 10_000
    assert all(json.loads(receipt.read_text())["run_id"] for receipt in (folder / "runs").glob("*.json"))
