"""Prompt-OIRL on an imported log, from the released file to its page: literal DVC commands that run only what is needed."""

from pathlib import Path

import pytest

from tasks.core.files import read_json
from tests.processes import Done, Nursery
from tests.smoke.checkout import checkout

BY_QUESTION = """
dvc exp run --name svamp-oirl -S prompt_log.source=data/prompt_logs/svamp.yaml -S prompt_log.split=question
  -S prompt_oirl.encoder=data/encoders/tfidf.yaml -S prompt_oirl.learner=mean report_prompts
"""
AS_RELEASED = """
dvc exp run --name svamp-oirl-released -S prompt_log.source=data/prompt_logs/svamp.yaml
  -S prompt_oirl.encoder=data/encoders/tfidf.yaml -S prompt_oirl.learner=mean report_prompts
"""
ALLOWED = "-S validate_data.allow_contamination=true"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkout(tmp_path)


def execute(nursery: Nursery, folder: Path, command: str, shared: Path) -> Done:
    words = command.replace("dvc", "tests.smoke.forked_dvc", 1)
    return nursery.run(folder, words, DVC_NO_ANALYTICS="1", REALIGN_SHARED=str(shared))


def test_only_the_gate_the_fit_and_the_page_run(nursery: Nursery, folder: Path, shared: Path) -> None:
    done = execute(nursery, folder, BY_QUESTION, shared)
    assert done.code == 0, done.stdout + done.stderr
    assert {file.stem for file in (folder / "runs").glob("*.json")} == {
        "validate_prompt_log", "prompt_oirl", "prompt_oirl_study", "report_prompts",
    }  # fmt: skip
    metrics = read_json(folder / "reports/prompt_oirl/metrics.json")
    assert (metrics["contaminated"], metrics["best_prompt_success"] > 0.6, metrics["auc"] > 0.7) == (0, True, True)
    assert "Contaminated" not in (folder / "reports/prompts.html").read_text().replace("Contamination", "")


def test_the_released_split_is_stopped_and_goes_on_marked(nursery: Nursery, folder: Path, shared: Path) -> None:
    done = execute(nursery, folder, AS_RELEASED, shared)
    assert done.code != 0
    assert "overlap_prompt_log.same: 3777 of 3777 rows fail" in done.stdout + done.stderr
    assert not (folder / "reports/prompt_oirl").exists()
    done = execute(nursery, folder, AS_RELEASED.replace(" report_prompts", f" {ALLOWED} report_prompts"), shared)
    assert done.code == 0, done.stdout + done.stderr
    assert read_json(folder / "reports/prompt_oirl/metrics.json")["contaminated"] == 1
    page = (folder / "reports/prompts.html").read_text()
    assert "Contaminated: Prompt-OIRL was tested on queries of its training log." in page
    assert "Its test queries are among its training queries, which flatters both." in page
