"""The gate lets nothing pass whose gain may be chance, or that has anything against it; and the registry keeps its word."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import promote, rollback
from flows.engine import promotion
from flows.engine.gate import Evidence, gain, refusals
from tasks.core.errors import InputError
from tasks.core.files import digest, write_json, write_table
from tasks.core.registry import Registry
from tasks.core.tracking import Tracker

SAFE = {"harmless_rate": 0.9, "over_refusal_rate": 0.1}
CHAMPION = Evidence("sampled accuracy", {f"p{i}": 0.5 for i in range(100)}, safety=SAFE)
BETTER = replace(CHAMPION, figures={f"p{i}": 0.6 + 0.1 * (i % 2) for i in range(100)})


def test_a_certain_gain_passes() -> None:
    assert refusals(BETTER, CHAMPION, "version 1", 4) == []
    mean, low, high = gain(BETTER, CHAMPION, 1)
    assert mean == pytest.approx(0.15)
    assert high - mean == pytest.approx(mean - low)
    assert mean - low == pytest.approx(1.96 * 0.05 / 99**0.5, rel=1e-3)  # by hand: differences of 0.1 and 0.2, alternating


def test_the_best_of_many_must_be_better_by_more() -> None:
    alone, among_many = gain(BETTER, CHAMPION, 1), gain(BETTER, CHAMPION, 20)
    assert among_many[0] == alone[0]
    assert among_many[1] < alone[1] < alone[2] < among_many[2]


@pytest.mark.parametrize(("candidate", "why"), [
    (CHAMPION, "its gain over version 1, +0.0000 [+0.0000, +0.0000], is not certain to be above zero"),
    (replace(BETTER, figures={f"p{i}": float(i % 2) + 0.01 for i in range(100)}), "is not certain to be above zero"),
    (replace(BETTER, alarms=("kl_budget", "entropy")), "its training raised alarms: kl_budget, entropy"),
    (replace(BETTER, contaminated=True), "test prompts are in the training data"),
    (replace(BETTER, safety=SAFE | {"harmless_rate": 0.8}), "harmless_rate is 0.800, worse than 0.900 of version 1"),
    (replace(BETTER, safety=SAFE | {"over_refusal_rate": 0.2}), "over_refusal_rate is 0.200, worse than 0.100 of version 1"),
    (replace(BETTER, safety={"over_refusal_rate": 0.1}), "harmless_rate was not measured; it is 0.900 for version 1"),
    (replace(BETTER, figures={"other": 1.0}), "version 1 was measured on other test prompts or by another measure"),
    (replace(BETTER, measure="score of reward model x"), "version 1 was measured on other test prompts or by another measure"),
])  # fmt: skip
def test_each_reason_is_enough_to_refuse(candidate: Evidence, why: str) -> None:
    [reason] = refusals(candidate, CHAMPION, "version 1", 4)
    assert why in reason


def test_all_reasons_are_named() -> None:
    assert len(refusals(replace(CHAMPION, alarms=("entropy",), contaminated=True, safety={}), CHAMPION, "SFT", 1)) == 5


Finish = Callable[..., str]


@pytest.fixture
def finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path) -> Finish:
    """What a flow leaves that trained ppo-0 and dpo-0 and has just ended; returns what the gate says."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def flow(ppo: float, dpo: float = 0.0, alarm: str = "", contaminated: int = 0) -> str:
        shares = {"sft": 0.5, "policy.ppo.0": ppo, "policy.dpo.0": dpo}
        rows: list[dict[str, Any]] = [
            {"model": model, "prompt": f"p{i}", "completion": "4", "score": 0.0, "samples": 100,
             "samples_right": round(100 * share) + i % 2}
            for model, share in shares.items() for i in range(50)
        ]  # fmt: skip
        write_table(promotion.COMPLETIONS, rows)
        policies = {"ppo": {"0": {"accuracy": ppo}}, "dpo": {"0": {"accuracy": dpo}}}
        write_json(promotion.METRICS, {"contaminated": contaminated, "sft": {}, "policy": policies})
        for name, share in (("ppo-0", ppo), ("dpo-0", dpo)):
            folder = Path(f"models/policy/{name}")
            write_json(folder / "config.json", share)
            history = [{"step": 0, "loss/policy": 1.0}, {"step": 1, "alarm/entropy" if alarm == name else "loss/policy": 1.0}]
            write_json(Path(f"reports/policy/{name}/history.json"), history)
            made_by = Tracker(f"policy@{name}", {}, {})
            made_by.model(folder, digest(folder))
            made_by.finish("FINISHED")
            write_json(Path(f"runs/policy@{name}.json"), {"run_id": made_by.run_id, "outs": {str(folder): digest(folder)}})
        pipeline = Tracker("align", {}, {})
        sentence, evidence = promotion.consider(pipeline.run_id)
        if evidence:
            pipeline.text(evidence, promotion.EVIDENCE)
        pipeline.finish("FINISHED")
        return sentence

    return flow


def test_the_best_policy_is_registered_and_the_better_one_becomes_champion(finish: Finish) -> None:
    assert finish(ppo=0.6).startswith("policy@ppo-0 is version 1 of `policy` in MLflow, and the new champion: +0.1000 [")
    assert finish(ppo=0.55).startswith("policy@ppo-0 is version 2 of `policy` in MLflow, not the champion: its gain over ")
    assert "version 3 of `policy` in MLflow, and the new champion: +0.1000 [+0.1000, +0.1000] over version 1 (ppo-0)" in finish(
        ppo=0.6, dpo=0.7
    )
    registry = Registry("policy")
    assert {version.number: version.tags["model"] for version in registry.versions()} == {
        "1": "ppo-0", "2": "ppo-0", "3": "dpo-0",
    }  # fmt: skip
    champion = registry.champion()
    assert champion
    assert champion.number == "3"


def test_an_evaluation_is_considered_once(finish: Finish) -> None:
    first = finish(ppo=0.6)
    assert finish(ppo=0.6) == first
    assert len(Registry("policy").versions()) == 1


@pytest.mark.parametrize(("doubt", "why"), [
    ({"alarm": "ppo-0"}, "its training raised alarms: entropy"),
    ({"contaminated": 1}, "test prompts are in the training data"),
])  # fmt: skip
def test_a_refused_policy_is_registered_with_the_reason(finish: Finish, doubt: dict[str, Any], why: str) -> None:
    sentence = finish(ppo=0.6, **doubt)
    assert why in sentence
    assert "`python -m flows.promote 1` decides otherwise" in sentence
    registry = Registry("policy")
    [version] = registry.versions()
    assert version.tags["gate"] == sentence
    assert registry.champion() is None


def test_the_version_is_servable_and_holds_no_pickle(finish: Finish, tmp_path: Path) -> None:
    finish(ppo=0.6)
    found = Registry("policy")._client.get_model_version("policy", "1")
    [folder] = (tmp_path / "mlartifacts/models").glob("*/artifacts/artifacts/ppo-0")  # one LoggedModel of it, not two
    files = {file.relative_to(folder.parents[1]).as_posix() for file in folder.parents[1].rglob("*") if file.is_file()}
    assert {"MLmodel", "served.py", "artifacts/ppo-0/config.json", "input_example.json", "code/tasks/models/text.py"} <= files
    assert not [file for file in files if file.endswith((".pkl", ".pt", ".bin", ".pyc"))]
    assert found.run_id == json.loads(Path("runs/policy@ppo-0.json").read_text())["run_id"]


def test_a_copy_of_the_project_registers_nothing(finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".scratch/compare/variant").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ".scratch/compare/variant")
    assert finish(ppo=0.6) == ""
    assert Registry("policy").versions() == []


def test_promote_and_roll_back(finish: Finish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finish(ppo=0.6)
    finish(ppo=0.55)
    monkeypatch.setattr(sys, "argv", ["flows.promote", "2"])
    promote.main()
    monkeypatch.setattr(sys, "argv", ["flows.rollback"])
    rollback.main()
    told = capsys.readouterr().out.splitlines()[-2:]
    assert told == [
        "the champion is version 2 of policy (ppo-0)",
        "the champion is version 1 of policy again (ppo-0), no longer 2",
    ]
    with pytest.raises(SystemExit, match="no version of policy was champion before version 1: stay"):
        rollback.main()
    with pytest.raises(InputError, match="the registry has no version 7 of policy; there are 1, 2"):
        Registry("policy").version("7")


def test_what_was_rolled_back_does_not_come_back_by_itself(finish: Finish) -> None:
    finish(ppo=0.6)
    finish(ppo=0.7)
    Registry("policy").roll_back()
    assert "it was champion and was rolled back" in finish(ppo=0.7, dpo=0.1)
