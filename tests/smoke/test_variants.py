"""Every variant of the README, from real data to the report page, by its params alone; only the sizes are cut here."""

import json
from pathlib import Path

import pytest

from tests.processes import Nursery
from tests.smoke.checkout import SMALL, assign, checkout, variants

STAGES = """
tasks.data.prepare
tasks.data.validate data
tasks.algorithms.base_model
tasks.algorithms.sft
tasks.feedback.collect
tasks.data.validate preferences
tasks.algorithms.reward_model
tasks.algorithms.ppo --seed 0
tasks.algorithms.grpo --seed 0
tasks.algorithms.dpo --seed 0
tasks.algorithms.raft --seed 0
tasks.prompt_oirl.collect
tasks.data.validate prompt_log
tasks.prompt_oirl.fit
tasks.report.prompt_page
tasks.evaluation.evaluate
tasks.report.page
""".strip().splitlines()


@pytest.mark.parametrize("name", ["svamp", "gsm8k", "mawps", "stories"])
def test_variant_runs_from_data_to_report(name: str, tmp_path: Path, nursery: Nursery, database: Path, shared: Path) -> None:
    settings = variants()[name]
    folder = checkout(tmp_path)
    assign(folder, SMALL.split())
    assign(folder, settings)
    if name == "mawps":
        assign(folder, ["prepare_data.max_rows=null"])  # its 13 repeated problems are spread over the whole
    if name == "stories":
        assign(folder, ["task.max_new_tokens=64"])
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    for stage in STAGES:
        done = nursery.run(folder, stage, REALIGN_SHARED=str(shared))
        assert done.code == 0, f"{stage}: {done.stderr}"
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert metrics["contaminated"] == (name == "mawps")
    assert set(metrics["policy"]) == {"ppo", "grpo", "dpo", "raft"}
    assert 0 <= metrics["policy"]["ppo"]["0"]["win_rate"] <= 1
    assert (folder / "reports/index.html").stat().st_size > 10_000
    assert all(json.loads(receipt.read_text())["run_id"] for receipt in (folder / "runs").glob("*.json"))
