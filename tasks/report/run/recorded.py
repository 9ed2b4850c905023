"""What a run left on disk, gathered for the page: nothing here is computed, only read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.config import lookup, policy_matrix, read_params
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json, read_table
from tasks.core.stage import Stage
from tasks.report.prompt_oirl.proposals import Proposals, read_proposals
from tasks.report.prompt_oirl.recorded import PromptOirl, read_prompt_oirl
from tasks.report.recorded import Figures, History, read_history

# params of all policies
SHARED = ("runtime", "task", "adapter", "optimizer", "validation", "base_model", "sft", "reward_model", "reward")


@dataclass(frozen=True)
class Policy:
    """One entry of the matrix: its figures on the test prompts and its training curve."""

    algorithm: str
    seed: int
    figures: Figures
    history: History

    @property
    def model(self) -> str:
        """Its name in reports/evaluate/completions.parquet."""
        return f"policy.{self.algorithm}.{self.seed}"


@dataclass(frozen=True)
class Recorded:
    """Everything the page shows. params: by namespace. feedback: of collect_preferences. histories: of base_model, sft,
    reward_model; empty where nothing was trained."""

    contaminated: bool
    params: dict[str, dict[str, Any]]
    base_model: Figures
    sft: Figures
    cool_sft: Figures
    feedback: Figures
    reward_model: Figures
    reward_calibration: list[Row]
    reward_agreement: list[Row]
    prompt_oirl: PromptOirl
    proposals: Proposals
    policies: list[Policy]
    histories: dict[str, History]
    completions: list[Row]
    best_of_n: list[Row]
    kinds: list[Row]
    matrix: list[Row]
    imitation: Figures
    horizons: list[Row]
    verdicts: dict[str, dict[str, Any]]

    @property
    def algorithms(self) -> dict[str, list[Policy]]:
        """Policies by algorithm, one per seed, in the order of params.yaml."""
        by_name: dict[str, list[Policy]] = {}
        for policy in self.policies:
            by_name.setdefault(policy.algorithm, []).append(policy)
        return by_name

    @property
    def num_prompts(self) -> int:
        return sum(row["model"] == "sft" for row in self.completions)


def read(stage: Stage) -> Recorded:
    """Read the declared dependencies. Folders of policies that params.yaml no longer names are ignored."""
    metrics = read_json(stage.dep("reports/metrics.json"))
    trained = {name: stage.dep(f"reports/{name}") for name in ("base_model", "sft", "reward_model")}
    gates = ("validate_data", "validate_preferences")
    verdicts = {name: read_json(stage.dep(f"reports/{name}") / "verdict.json") for name in gates}
    evaluated = stage.dep("reports/evaluate")
    folder = stage.dep("reports/policy")
    prompt_oirl = read_prompt_oirl(stage)
    imitation = stage.dep("reports/imitation")
    return Recorded(
        contaminated=bool(metrics["contaminated"]) or any(verdict.get("contaminated") for verdict in verdicts.values()),
        params={name: lookup(read_params(), name) for name in namespaces()},
        base_model=read_json(trained["base_model"] / "metrics.json"),
        sft=metrics["sft"],
        cool_sft=metrics["control"]["cool_sft"],
        feedback=read_json(stage.dep("reports/collect_preferences") / "metrics.json"),
        reward_model=metrics["reward_model"],
        reward_calibration=_table(trained["reward_model"] / "calibration.parquet"),
        reward_agreement=_table(trained["reward_model"] / "agreement.parquet"),
        prompt_oirl=prompt_oirl,
        proposals=read_proposals(stage),
        policies=[_policy(algorithm, seed, metrics, folder) for algorithm, seed in policy_matrix()],
        histories={name: read_history(path) for name, path in trained.items()},
        completions=read_table(evaluated / "completions.parquet"),
        best_of_n=_table(evaluated / "best_of_n.parquet"),
        kinds=_table(evaluated / "kinds.parquet"),
        matrix=_table(evaluated / "matrix.parquet"),
        imitation=read_json(imitation / "metrics.json"),
        horizons=read_table(imitation / "horizons.parquet"),
        verdicts=verdicts | {"validate_prompt_log": prompt_oirl.verdict},
    )


def namespaces() -> list[str]:
    """Of the params that the page shows: those of each algorithm, then those that all share."""
    return [*dict.fromkeys(f"policy.{algorithm}" for algorithm, _ in policy_matrix()), *SHARED]


def _table(file: Path) -> list[Row]:
    return read_table(file) if file.exists() else []


def _policy(algorithm: str, seed: int, metrics: dict[str, Any], folder: Path) -> Policy:
    try:
        figures = metrics["policy"][algorithm][str(seed)]
    except KeyError:
        raise InputError(
            f"reports/metrics.json has no figures of policy {algorithm}-{seed}; `dvc repro evaluate` writes them"
        ) from None
    return Policy(algorithm, seed, figures, read_history(folder / f"{algorithm}-{seed}"))
