"""A small run, recorded by hand: every file the report reads, with numbers that can be told apart."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.files import Row, write_json, write_table
from tasks.report.drawing import house_style
from tasks.report.run.charts import draw
from tasks.report.run.page import page
from tasks.report.run.recorded import SHARED, Recorded, read
from tasks.report.run.tabular import CLAIMS, METHODS
from tests.project import write_params

STEPS = 20
RIGHT = {  # of prompts 0 to 5
    "sft": [True, True, False, False, False, True],
    "ppo": [True, True, True, True, False, True],
    "grpo": [True, False, False, True, False, True],
    "dpo": [False, True, True, False, False, False],
}


class Run:
    """A folder of recorded files. Change `metrics`, `completions`, `prompts`, `choices`, then write(), then page()."""

    def __init__(self, folder: Path, seeds: list[int], win_rates: dict[str, tuple[float, float]]):
        self.folder, self.seeds, self.algorithms = folder, seeds, list(win_rates)
        self.metrics: dict[str, Any] = {
            "contaminated": 0,
            "sft": figures(0),
            "control": {"cool_sft": {key: value for key, value in figures(70).items() if key in COOL}},
            "reward_model": {
                "accuracy": 0.8123, "accuracy_low": 0.7901, "accuracy_high": 0.8345, "accuracy_ceiling": 0.9321,
                "gold_correlation": 0.6543, "held_out_pairs": 321.0, "score_mean": 0.1, "score_std": 1.2,
                "baseline_accuracy": 0.6123, "baseline_accuracy_low": 0.5876, "baseline_accuracy_high": 0.6365,
                "longer_wins": 0.4432, "length_correlation": -0.1234, "ece": 0.0471,
            },
            "prompt_oirl": {
                "success": 0.7654, "best_prompt_success": 0.6321, "oracle_success": 0.9012, "random_success": 0.4567,
                "gain": 0.1333, "gain_low": 0.1011, "gain_high": 0.1655, "accuracy": 0.7788, "auc": 0.8899,
                "precision": 0.7123, "log_loss": 0.5321, "ece": 0.0432, "choice_ece": 0.0567, "contaminated": 0.0,
            },
            "policy": {
                name: {str(seed): figures(10 * i + seed + 1, win_rates[name]) for seed in seeds}
                for i, name in enumerate(self.algorithms)
            },
        }  # fmt: skip
        self.params: dict[str, dict[str, Any]] = {
            name: {"num_steps": 40 + i, "learning_rate": 0.001 + i / 1000}
            for i, name in enumerate([*(f"policy.{name}" for name in self.algorithms), *SHARED])
        } | {"runtime": {"seed": 0, "threads": 1, "device": "cpu"}}
        models = ["sft", *(f"policy.{name}.{seed}" for name in self.algorithms for seed in seeds)]
        right = RIGHT | {name: RIGHT[list(RIGHT)[i % 4]] for i, name in enumerate(self.algorithms) if name not in RIGHT}
        self.completions: list[Row] = [
            {
                "model": model, "id": f"test-{i}", "prompt": f"query {i}\nDo it.\n", "completion": f"{model} says {i}",
                "correct": right[model.split(".")[1] if "." in model else model][i], "score": round(0.1 * i + 0.01 * j, 4),
            }
            for i in range(6) for j, model in enumerate(models)
        ]  # fmt: skip
        self.imitation = {
            f"{key}{end}": 0.2 + 0.011 * i + offset
            for i, key in enumerate(CLAIMS)
            for end, offset in {"": 0.0, "_low": -0.001, "_high": 0.001}.items()
        }
        self.horizons: list[Row] = [
            {"method": name, "horizon": 8 * 2**i, "error": 0.1 * 2**i, "error_low": 0.09 * 2**i, "error_high": 0.11 * 2**i}
            for name in METHODS
            for i in range(3)
        ]
        self.prompts: list[Row] = [
            {"prompt_id": "short", "prompt": "Be short.", "train_success": 0.4111, "test_success": 0.4222},
            {"prompt_id": "steps", "prompt": "Go step by step.", "train_success": 0.6444, "test_success": 0.6321},
        ]
        choices = [("short", True, "short"), ("short", False, "steps"), ("steps", True, "short, steps"), ("steps", False, "")]
        self.choices: list[Row] = [
            {
                "query_id": f"q{i}", "query": f"question {i}", "prompt_id": choices[i % 4][0],
                "probability": round(0.3 + i / 40, 4), "correct": choices[i % 4][1], "right_prompts": choices[i % 4][2],
                "right": float(choices[i % 4][1]), "best_right": float("steps" in choices[i % 4][2]),
            }
            for i in range(24)
        ]  # fmt: skip
        self.calibration: list[Row] = [
            {"predicted": 0.1 * i + 0.05, "right": 0.09 * i, "right_low": 0.08 * i, "right_high": 0.1 * i, "calls": 3 * i + 1}
            for i in range(10)
        ]
        self.cost: list[Row] = [
            {"way": way, "calls": calls, "tokens_read": 31.5 + calls + i, "tokens_written": written}
            for i, (way, calls, written) in enumerate(
                [("best single prompt", 1.0, 41.25), ("Prompt-OIRL", 1.0, None), ("every prompt", 2.0, 83.5)]
            )
        ]
        self.reward_calibration: list[Row] = [
            {
                "predicted": 0.55 + 0.1 * i,
                "right": 0.5 + 0.1 * i,
                "right_low": 0.4 + 0.1 * i,
                "right_high": 0.6 + 0.1 * i,
                "calls": 9,
            }
            for i in range(4)
        ]
        self.reward_agreement: list[Row] = [
            {"by": by, "group": group, "pairs": 97, "accuracy": 0.7531, "accuracy_low": 0.6512, "accuracy_high": 0.8345}
            for by, group in (("kind", "right against wrong"), ("margin", "0.00 to 1.00"), ("gap", "0.02 to <b>"))
        ]
        self.feedback = {"pairs": 7600.0}
        self.kinds: list[Row] = []  # of problems, and each model against each: left out, unless a test asks for them
        self.matrix: list[Row] = []
        self.best_of_n: list[Row] = []
        self.proposals: dict[str, float] = {}  # of a policy that wrote prompts: left out, unless a test asks for it
        self.candidates: list[Row] = []
        self.study: dict[str, float] = {}  # experiments on the whole log: none, unless a test asks for them
        self.curve: list[Row] = []
        self.verdicts = {name: {"success": True, "contaminated": False, "expectations": expectations()} for name in GATES}
        self.histories = {
            "base_model": [{"step": 10 * i, "loss/nll": 6 / (i + 1)} for i in range(STEPS)],
            "sft": [{"step": 10 * i, "loss/nll": 1 / (i + 1)} for i in range(STEPS)],
            "reward_model": [{"step": i, "loss/bradley_terry": 0.69 - i / 99, "train/accuracy": i / 20} for i in range(STEPS)],
            "prompt_oirl": [{"step": i, "loss/cross_entropy": 0.6 - i / 99} for i in range(STEPS)],
        }

    def write(self) -> "Run":
        reports = self.folder / "reports"
        policy = {name.partition(".")[2]: values for name, values in self.params.items() if name.startswith("policy.")}
        shared = {name: values for name, values in self.params.items() if not name.startswith("policy.")}
        policy |= {"algorithms": self.algorithms, "seeds": self.seeds}
        write_params(self.folder, shared | {"policy": policy, "report": {}, "report_prompts": {}})
        write_json(reports / "metrics.json", self.metrics)
        for name, history in self.histories.items():
            (reports / name).mkdir(parents=True, exist_ok=True)
            if history:
                write_json(reports / name / "history.json", history)
        write_json(reports / "base_model/metrics.json", {"parameters": 139584.0})
        write_json(reports / "collect_preferences/metrics.json", self.feedback)
        write_json(reports / "prompt_oirl/metrics.json", self.metrics["prompt_oirl"])
        write_json(reports / "prompt_oirl_study/metrics.json", self.study)
        write_json(reports / "propose_prompts/metrics.json", self.proposals)
        if self.candidates:
            write_table(reports / "propose_prompts/candidates.parquet", self.candidates)
        if self.curve:
            write_table(reports / "prompt_oirl_study/curve.parquet", self.curve)
        for name in ("prompts", "choices", "calibration", "cost"):
            if rows := getattr(self, name):
                write_table(reports / f"prompt_oirl/{name}.parquet", rows)
        for name in ("calibration", "agreement"):
            if rows := getattr(self, f"reward_{name}"):
                write_table(reports / f"reward_model/{name}.parquet", rows)
        write_table(reports / "evaluate/completions.parquet", self.completions)
        for name in ("kinds", "matrix", "best_of_n"):
            if rows := getattr(self, name):
                write_table(reports / f"evaluate/{name}.parquet", rows)
        write_json(reports / "imitation/metrics.json", self.imitation)
        write_table(reports / "imitation/horizons.parquet", self.horizons)
        for name, verdict in self.verdicts.items():
            write_json(reports / name / "verdict.json", verdict)
        for name in self.algorithms:
            for seed in self.seeds:
                write_json(reports / f"policy/{name}-{seed}/history.json", history_of(name, seed))
        return self

    def load(self) -> Recorded:
        stage: Any = SimpleNamespace(dep=Path)  # all that reading asks of a stage
        return read(stage)

    def page(self) -> str:
        recorded = self.load()
        with house_style():
            return page(recorded, draw(recorded))


COOL = ("sampled_accuracy", "sampled_accuracy_low", "sampled_accuracy_high", "entropy")
GATES = ("validate_data", "validate_preferences", "validate_prompt_log")
BETTER, UNCLEAR, WORSE = (0.5211, 0.5811), (0.4711, 0.5311), (0.4111, 0.4711)


def figures(number: int, win_rate: tuple[float, float] | None = None) -> dict[str, float]:
    """Every figure of the evaluation, different for each number."""
    offset = number / 1000
    found = {
        "accuracy": 0.65 + offset, "accuracy_low": 0.61 + offset, "accuracy_high": 0.69 + offset,
        "sampled_accuracy": 0.45 + offset, "sampled_accuracy_low": 0.42 + offset, "sampled_accuracy_high": 0.48 + offset,
        "score": -0.05 + 10 * offset, "entropy": 0.12 + offset, "perplexity": 3.5 + offset, "length": 20 + 100 * offset,
        "eos_rate": 0.9 + offset, "distinct_bigrams": 0.55 + offset,
    }  # fmt: skip
    if win_rate:
        low, high = win_rate
        found |= {"accuracy_p": 0.012 + offset, "sampled_accuracy_p": 0.0004 + offset}
        found |= {"win_rate": (low + high) / 2, "win_rate_low": low, "win_rate_high": high}
        found |= {"kl": 0.8 + 10 * offset, "kl_low": 0.7 + 10 * offset, "kl_high": 0.9 + 10 * offset}
    return {key: round(value, 6) for key, value in found.items()}


def history_of(algorithm: str, seed: int) -> list[Row]:
    """Of dpo and its like, a probe at every fifth step."""
    completions = [
        {
            "rollout/score_mean": 0.02 * i + seed, "rollout/reward_model_mean": 0.02 * i + seed,
            "rollout/verifier_mean": 0.5 + 0.01 * i, "rollout/kl_mean": 0.05 * i - 1e-6, "rollout/completion_length": 20.0 + i,
            "rollout/entropy": 0.1, "rollout/eos_rate": 1.0,
        }
        for i in range(STEPS)
    ]  # fmt: skip
    if "dpo" in algorithm:
        sides = {"train/chosen_logratio": -0.1, "train/rejected_logratio": -3.0}
        probes = [found if i % 5 == 0 or i == STEPS - 1 else {} for i, found in enumerate(completions)]
        return [
            {"step": i, "loss/dpo": 0.69 - i / 50, "train/accuracy": 0.5 + i / 50, **sides, **found}
            for i, found in enumerate(probes)
        ]
    return [{"step": i, "rollout/tokens": 1000.0 + i, **found} for i, found in enumerate(completions)]


def expectations() -> list[Row]:
    def one(table: str, column: str, failed: int = 0) -> Row:
        rows = [{"index": i, "id": f"id-{i}", "reason": "overlap", "found": "'seen <b>before</b>'"} for i in range(failed)]
        name, arguments = "expect_column_values_to_be_in_set", {"column": column, "value_set": [False], "notes": "it overlaps"}
        return {
            "table": table, "expectation": name, "arguments": arguments, "success": not failed, "checked": 900,
            "failed": failed, "rows": rows,
        }  # fmt: skip

    return [one("prompts", "id"), one("overlap_corpus", "same"), one("overlap_corpus", "near")]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run below tmp_path and goes there, as a stage does."""

    def make(seeds: tuple[int, ...] = (0,), name: str = "run", **win_rates: tuple[float, float]) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        return Run(folder, list(seeds), win_rates or {"ppo": BETTER, "grpo": UNCLEAR, "dpo": WORSE})

    return make
