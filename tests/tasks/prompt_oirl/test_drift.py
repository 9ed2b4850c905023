"""Whether a fitted choice still holds: far queries counted, chances that come true or not, and the command with its run."""

import json
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.mlflow_client import connect
from tasks.core.registry import served_folder
from tasks.data.calls import COLUMNS
from tasks.prompt_oirl import drift
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.drift import ENOUGH, calibration, check
from tasks.prompt_oirl.reference import Reference
from tests.processes import Nursery, TrackingServer
from tests.tasks.prompt_oirl.conftest import register_fit
from tests.tasks.prompt_oirl.test_selector import PROMPTS, rows_of

REFERENCE = Reference(np.array([[0.0]]), unit=1.0, success={"plain": 0.5, "steps": 0.5})


def selector(chances: float = 0.6) -> Any:
    """A query is a number, its feature; the log has 0 alone, so 2 is far."""
    return SimpleNamespace(
        prompts=PROMPTS,
        features=lambda queries: np.array([[float(query.split()[0])] for query in queries]),
        score=lambda features: np.full((len(features), 2), chances),
    )


def call(query: str, correct: bool | None = None, **columns: Any) -> Row:
    return {**dict.fromkeys(COLUMNS), "query": query, "prompt_id": "plain", "correct": correct} | columns


def calls(number: int, right: float) -> list[Row]:
    """Near queries under both prompts, of which this share is right."""
    chance = random.Random(0)
    return [call(f"0.5 {n}", chance.random() < right, prompt_id=prompt_id) for n in range(number) for prompt_id in PROMPTS]


def test_far_queries_are_counted_once_each() -> None:
    found = check(selector(), REFERENCE, [call("0.5"), call("0.5"), call("2"), call("3"), call("1")])
    assert (found.figures["queries"], found.figures["far_share"]) == (4, 0.5)
    assert found.drifted  # 2 of 4: Wilson's interval begins at .15
    assert found.verdict.startswith("drift: 50.0% [15.0%, 85.0%] of 4 queries are far from the log; 0 queries with `correct`")


@pytest.mark.parametrize(("far", "drifted"), [(1, False), (5, False), (20, True)])
def test_one_far_query_in_a_hundred_is_as_in_the_log(far: int, drifted: bool) -> None:
    rows = [call(f"{2 if n < far else 0} {n}") for n in range(100)]
    assert check(selector(), REFERENCE, rows).drifted is drifted


@pytest.mark.parametrize(("promised", "right", "drifted"), [(0.6, 0.6, False), (0.5, 0.3, True), (0.9, 0.6, True)])
def test_chances_that_do_not_come_true_are_drift(promised: float, right: float, drifted: bool) -> None:
    found = check(selector(promised), REFERENCE, calls(200, right))
    assert found.drifted is drifted
    assert found.figures["promised"] == pytest.approx(promised)
    low, gain, high = (found.figures[f"recalibration_gain{end}"] for end in ("_low", "", "_high"))
    assert low < gain < high
    assert (low > 0) is drifted
    assert sum(row["calls"] for row in found.reliability) == 400
    assert ("fit again" in found.verdict) is drifted


def test_too_few_answers_judge_nothing() -> None:
    found = check(selector(0.99), REFERENCE, calls(ENOUGH - 1, 0.6))
    assert not found.drifted
    assert "recalibration_gain" not in found.figures
    assert f"49 queries with `correct` do not show whether chances come true, {ENOUGH} are needed" in found.verdict


def test_the_figures_by_hand() -> None:
    """Two queries, the first asked twice under the first prompt, the second never under the second."""
    judged = Answers(["a", "b"], PROMPTS, np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[2.0, 1.0], [1.0, 0.0]]))
    chances = np.array([[0.8, 0.6], [0.3, 0.01]])
    found, reliability = calibration(chances, judged)
    assert found["brier"] == pytest.approx((0.2**2 + 0.8**2 + 0.4**2 + 0.3**2) / 4)
    assert found["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.2) + math.log(0.6) + math.log(0.7)) / 4)
    assert (found["right"], found["calls"], found["queries_judged"]) == (0.5, 4, 2)
    assert found["promised"] == pytest.approx((0.8 + 0.8 + 0.6 + 0.3) / 4)
    assert found["ece"] == pytest.approx((2 * 0.3 + 0.4 + 0.3) / 4)
    assert [row["calls"] for row in reliability] == [1, 1, 2]


def test_a_prompt_is_known_by_its_text_before_its_id() -> None:
    """Ids that were made for a file without ids say nothing."""
    rows = [call(f"0 {n}", True, prompt_id="prompt-0", prompt=PROMPTS["steps"]) for n in range(ENOUGH)]
    known = [drift.known(row, 0, selector())["prompt_id"] for row in rows]
    assert known == ["steps"] * ENOUGH
    assert check(selector(), REFERENCE, rows).figures["calls"] == ENOUGH


@pytest.mark.parametrize(("rows", "says"), [
    ([], "there are no queries to check"),
    ([call("0"), call(" ")], "row 1: the query is blank"),
    ([call("0"), call("0", True, prompt_id="new")], "row 1: `correct` is that of an answer under prompt new, which the model "),
    ([call("0", True, prompt="Else.")], "row 0: the text of prompt plain is not that in the log of the model"),
])  # fmt: skip
def test_what_cannot_be_checked_is_one_sentence(rows: list[Row], says: str) -> None:
    with pytest.raises(InputError) as error:
        check(selector(), REFERENCE, rows)
    assert str(error.value).startswith(says)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The exit code, which is a sentence for bad input."""
    monkeypatch.setattr(sys, "argv", ["drift", *arguments])
    with pytest.raises(SystemExit) as end:
        drift.main()
    return end.value.code


def test_the_command_says_it_in_one_sentence_and_tells_mlflow(
    registered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [{"query": row["query"], "prompt_id": row["prompt_id"], "correct": row["correct"]} for row in rows_of(60, seed=5)]
    poems = [{"query": f"Write me a poem about the sea and {n} ships"} for n in range(20)]
    for name, rows in (("same", same), ("poems", poems)):
        (registered / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command(monkeypatch, "same.jsonl") == 0
    assert command(monkeypatch, "poems.jsonl", "--model", "models:/prompt_oirl/1") == 3
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == ["no drift", "drift"]
    client = connect()
    experiment = client.get_experiment_by_name("realign")
    poem, plain, _ = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    assert (poem.data.tags["drifted"], plain.data.tags["drifted"]) == ("true", "false")
    assert plain.data.params["model"] == "models:/prompt_oirl/1"
    assert plain.data.metrics["log_loss_low"] < plain.data.metrics["log_loss"] < 0.69
    assert poem.data.metrics["far_share"] == 1
    assert poem.data.tags["mlflow.note.content"] == told[1]
    assert "reliability.json" in [file.path for file in client.list_artifacts(plain.info.run_id)]


def test_the_model_of_a_tracking_server_is_checked(
    registry: Path, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TrackingServer(tmp_path_factory.mktemp("server"), registry / "mlflow.db", nursery)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        register_fit(registry / "models/prompt_oirl")
        (registry / "new.jsonl").write_text("".join(json.dumps({"query": row["query"]}) + "\n" for row in rows_of(60, seed=5)))
        assert command(monkeypatch, "new.jsonl") == 0
        client = connect()
        [run, _] = client.search_runs(["1"], order_by=["attributes.start_time DESC"])
        assert (run.info.run_name, run.data.tags["model"]) == ("drift", "models:/prompt_oirl/1")
        assert [prompt.name for prompt in client.search_prompts()] == ["prompt_oirl.plain", "prompt_oirl.steps"]
    finally:
        server.stop()


def test_bad_input_is_one_sentence(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (registered / "new.jsonl").write_text('{"question": "How many?"}\n')
    assert command(monkeypatch, "absent.jsonl") == "absent.jsonl is missing"
    assert command(monkeypatch, "new.jsonl") == "new.jsonl, row 0: no column `query`; there are `question`"
    assert "models:/none@newest cannot be read from MLflow's registry (" in command(
        monkeypatch, "new.jsonl", "--model", "models:/none@newest"
    )
    assert command(monkeypatch, "new.jsonl", "--model", "prompt_oirl").startswith("prompt_oirl names no version of a model")
    (registered / "new.jsonl").write_text('{"query": " "}\n')
    assert command(monkeypatch, "new.jsonl") == "new.jsonl, row 0: the query is blank; leave the row out"


def test_a_version_that_is_no_choice_is_refused(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, folder = served_folder("models:/prompt_oirl@newest", tmp_path / "scratch")
    assert version == "models:/prompt_oirl/1"
    (folder / "reference.npz").unlink()
    monkeypatch.setattr(drift, "served_folder", lambda *_: (version, folder))
    (registered / "new.jsonl").write_text('{"query": "How many?"}\n')
    assert command(monkeypatch, "new.jsonl").startswith(
        "models:/prompt_oirl/1 is no choice of prompts that this code could read"
    )
