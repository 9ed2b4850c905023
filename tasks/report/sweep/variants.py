"""What the variants of a sweep left on disk, gathered for its page. Nothing has to be there: a variant may have failed, and
another project's evaluation may record other figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tasks.core.files import Row, read_json, read_table
from tasks.report.alarms import Alarm, raised
from tasks.report.recorded import Figures, read_history

Prompt: TypeAlias = tuple[str, str]  # id and text of a test prompt
Right: TypeAlias = dict[Prompt, float]  # share of right answers: 1 or 0 of a single one
Kind: TypeAlias = Literal["sampled", "greedy"]  # of completions
KINDS: tuple[Kind, ...] = ("sampled", "greedy")
Answers: TypeAlias = dict[Prompt, tuple[int, int]]  # how many answers were right, of how many
PROMPT_OIRL = "Prompt-OIRL"


@dataclass(frozen=True)
class Variant:
    """listed: what a list of variants calls it; params: of the keys that vary; proxies: figures of what stands in for the
    annotator, by stage. All else by model; figures: of the test prompts; right: prompt by prompt, greedy; sampled: the same for
    several samples; by_kind: share of right samples by kind of problem; tokens: sampled to train on; seconds: of the training.
    """

    name: str
    listed: str
    params: dict[str, Any]
    state: str
    why: str
    experiment: str
    contaminated: bool
    figures: dict[str, Figures]
    proxies: dict[str, Figures]
    right: dict[str, Right]
    sampled: dict[str, Answers]
    by_kind: dict[str, Figures]
    tokens: dict[str, float]
    seconds: dict[str, float]
    alarms: dict[str, list[Alarm]]

    def answers(self, kind: Kind, model: str) -> Answers:
        if kind == "sampled":
            return self.sampled.get(model, {})
        return {prompt: (int(right), 1) for prompt, right in self.right.get(model, {}).items()}


@dataclass(frozen=True)
class Sweep:
    """keys: what varies; listed: those that a list of variants sets; base: their values in params.yaml; seed: the key of the
    seed."""

    title: str
    keys: list[str]
    listed: list[str]
    base: dict[str, Any]
    seed: str
    variants: list[Variant]

    @property
    def models(self) -> list[str]:
        """sft, ppo, ... as they were evaluated, which is the order of params.yaml, and Prompt-OIRL."""
        evaluated = (model for variant in self.variants for model in variant.right)
        return list(dict.fromkeys([*evaluated, *(model for variant in self.variants for model in variant.figures)]))

    @property
    def groups(self) -> dict[str, dict[Any, Variant]]:
        """Variants that ended well, by what they change other than the seed, and in each group by seed."""
        groups: dict[str, dict[Any, Variant]] = {}
        for variant in self.variants:
            if variant.figures:
                groups.setdefault(self.label(variant), {})[variant.params.get(self.seed)] = variant
        return groups

    @property
    def most_seeds(self) -> int:
        return max((len(group) for group in self.groups.values()), default=0)

    @property
    def leading(self) -> Kind:
        """Sampled completions, where any were recorded: their share of right answers is continuous."""
        return "sampled" if any(variant.sampled for variant in self.variants) else "greedy"

    @property
    def reference(self) -> str:
        """The group that is compared with: the one that params.yaml says, or the first."""
        keys = [key for key in self.keys if key != self.seed]
        groups = {label: next(iter(group.values())) for label, group in self.groups.items()}
        same = (label for label, one in groups.items() if all(one.params[key] == self.base[key] for key in keys))
        return next(same, next(iter(groups), ""))

    def label(self, variant: Variant) -> str:
        """The name in a list, or learning_rate 0.001, kl_coef 0.05: what tells groups apart; nothing of the seed."""
        keys = [key for key in self.keys if key not in (self.seed, *self.listed)]
        named = [variant.listed] if variant.listed else []
        return ", ".join([*named, *(f"{key.rpartition('.')[2]} {variant.params[key]}" for key in keys)])


def read_sweep(folder: Path) -> Sweep:
    """Of the folder in which flows/compare.py keeps the sweep."""
    found = read_json(folder / "sweep.json")
    variants = [_variant(each) for each in found["variants"]]
    return Sweep(found["title"], found["keys"], found["listed"], found["base"], found["seed"], variants)


def _variant(entry: dict[str, Any]) -> Variant:
    reports = Path(entry["folder"]) / "reports"
    saved = entry["state"] == "saved" and (reports / "metrics.json").exists()
    metrics = read_json(reports / "metrics.json") if saved else {}
    right, sampled = _right(reports) if saved else ({}, {})
    policies = {
        _model(algorithm, seed, len(seeds) > 1): f"{algorithm}-{seed}"
        for algorithm, seeds in metrics.get("policy", {}).items()
        for seed in seeds
    }
    histories = {model: read_history(reports / f"policy/{name}") for model, name in policies.items()}
    seconds = {model: entry.get("seconds", {}).get(f"policy@{name}") for model, name in policies.items()}
    return Variant(
        entry["name"], entry["listed"], entry["params"], entry["state"], entry["why"], entry["experiment"],
        contaminated=bool(metrics.get("contaminated")),
        figures=dict(_figures(metrics)),
        proxies=_proxies(reports, metrics),
        right=right,
        sampled=sampled,
        by_kind=_by_kind(reports) if saved else {},
        tokens={model: sum(row.get("rollout/tokens", 0.0) for row in rows) for model, rows in histories.items() if rows},
        seconds={model: known for model, known in seconds.items() if known is not None},
        alarms={model: raised(history) for model, history in histories.items()},
    )  # fmt: skip


def _figures(metrics: dict[str, Any]) -> Iterator[tuple[str, Figures]]:
    if "sft" in metrics:
        yield "sft", metrics["sft"]
    for algorithm, seeds in metrics.get("policy", {}).items():
        for seed, figures in seeds.items():
            yield _model(algorithm, seed, len(seeds) > 1), figures
    if "success" in metrics.get("prompt_oirl", {}):
        yield PROMPT_OIRL, {"accuracy": metrics["prompt_oirl"]["success"], **_gain(metrics["prompt_oirl"])}


def _gain(figures: Figures) -> Figures:
    return {key: value for key, value in figures.items() if key.startswith("gain")}


def _model(algorithm: str, seed: str, several: bool) -> str:
    return f"{algorithm}, seed {seed}" if several else algorithm


def _right(reports: Path) -> tuple[dict[str, Right], dict[str, Answers]]:
    """Of greedy completions, and of the queries with the prompt chosen by Prompt-OIRL; and of sampled completions. Absent where
    nothing can be checked."""
    right: dict[str, Right] = {}
    sampled: dict[str, Answers] = {}
    completions, choices = reports / "evaluate/completions.parquet", reports / "prompt_oirl/choices.parquet"
    rows = read_table(completions) if completions.exists() else []
    names = _names(rows)
    for row in rows:
        if row["correct"] is not None:
            model = names[row["model"]]
            right.setdefault(model, {})[row["id"], row["prompt"]] = float(row["correct"])
            if row.get("samples_right") is not None:
                sampled.setdefault(model, {})[row["id"], row["prompt"]] = row["samples_right"], row["samples"]
    for row in read_table(choices) if choices.exists() else []:
        right.setdefault(PROMPT_OIRL, {})[row["query_id"], row["query"]] = float(row["correct"])
    return right, sampled


def _by_kind(reports: Path) -> dict[str, Figures]:
    file = reports / "evaluate/kinds.parquet"
    rows = read_table(file) if file.exists() else []
    names, found = _names(rows), dict[str, Figures]()
    for row in rows:
        found.setdefault(names[row["model"]], {})[row["kind"]] = row["sampled_accuracy"]
    return found


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """ppo, or with several seeds ppo, seed 0: by the model's name in the tables of an evaluation, policy.ppo.0."""
    parts = {row["model"]: row["model"].removeprefix("policy.").rpartition(".") for row in rows}
    algorithms = [algorithm for algorithm, _, _ in parts.values()]
    return {
        raw: _model(algorithm, seed, algorithms.count(algorithm) > 1) if algorithm else raw
        for raw, (algorithm, _, seed) in parts.items()
    }


def _proxies(reports: Path, metrics: dict[str, Any]) -> dict[str, Figures]:
    judge = reports / "judge_model/metrics.json"
    found = {stage: metrics[stage] for stage in ("reward_model", "prompt_oirl") if stage in metrics}
    return found | ({"judge_model": read_json(judge)} if judge.exists() else {})
