"""What the user sees: the plan, the stages' output line by line, what became of each stage, and the results."""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.engine.lineage import State
from flows.engine.plan import Step
from tasks.core.files import read_json

METRICS = Path("reports/metrics.json")
PAGE = Path("reports/index.html")
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_yellow")
STYLES = {
    "cached": "dim",
    "restore": "cyan",
    "restored": "cyan",
    "run": "bold green",
    "ran": "green",
    "failed": "bold red",
    "stopped": "red",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a stage. why: the reason it ran, or the sentence with which it failed."""

    name: str
    state: State
    why: str
    seconds: float
    log: str = ""


console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140, highlight=False)


def show_plan(steps: Iterable[Step]) -> None:
    table = Table("stage", "will", "why", title="plan", title_justify="left", box=None, pad_edge=False)
    for step in steps:
        table.add_row(step.name, Text(step.action, STYLES.get(step.action, "")), Text(step.why))
    console.print(table)


def line_printer(names: Iterable[str]) -> Callable[[str, str], None]:
    """A function (stage, line) that prints a line behind the stage's name, each stage in its colour."""
    names = list(names)
    width = max(map(len, names), default=0)
    colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}

    def show(name: str, line: str) -> None:
        console.print(Text.assemble((f"{name:<{width}} │ ", colour[name]), Text.from_ansi(line)), soft_wrap=True)

    return show


def show_outcomes(outcomes: Iterable[Outcome]) -> None:
    table = Table("stage", "state", "seconds", "why", title="what happened", title_justify="left", box=None, pad_edge=False)
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}" if outcome.state != "not run" else ""
        why = f"{outcome.why}; see {outcome.log}" if outcome.log else outcome.why
        table.add_row(outcome.name, Text(outcome.state, STYLES.get(outcome.state, "")), seconds, Text(why))
    console.print(table)


def show_results(made: set[str], runs: str, promotion: str) -> None:
    """The comparison, from the file that the evaluation wrote. made: what the stages of this flow make: the rest of what lies
    here may be of other params; runs: where MLflow shows them; promotion: what became of the best policy."""
    if str(METRICS) in made and METRICS.exists():
        metrics = read_json(METRICS)
        console.print(_policies(metrics))
        prompts = metrics.get("prompt_oirl", {})
        if prompts:
            named = {"success": "chosen per query", "best_prompt_success": "best single prompt", "oracle_success": "oracle"}
            shown = [f"{what} {_share(prompts[key])}" for key, what in named.items() if key in prompts]
            leak = " (contaminated: tested on queries of its training log)" if prompts.get("contaminated") else ""
            console.print(f"Prompt-OIRL, share of queries solved: {', '.join(shown)}{leak}")
    if promotion:
        console.print(f"gate: {promotion}", soft_wrap=True)
    if str(PAGE) in made and PAGE.exists():
        console.print(f"report page: {PAGE}")
    console.print(f"every run: {runs}", soft_wrap=True)


def _policies(metrics: dict[str, Any]) -> Table:
    table = Table("policy", "sampled", "greedy", "win rate against SFT", "KL to SFT", title="results", title_justify="left")
    cool = metrics.get("control", {}).get("cool_sft", {})
    for name, found in {"sft": metrics.get("sft", {}), "cooler sft": cool}.items():
        table.add_row(name, _share(found.get("sampled_accuracy")), _share(found.get("accuracy")), "", "")
    for algorithm, seeds in metrics.get("policy", {}).items():
        for seed, found in seeds.items():
            low, high = _share(found.get("win_rate_low")), _share(found.get("win_rate_high"))
            win = f"{_share(found.get('win_rate'))}  [{low}, {high}]" if found.get("win_rate") is not None else "-"
            accuracies = _share(found.get("sampled_accuracy")), _share(found.get("accuracy"))
            table.add_row(f"{algorithm}-{seed}", *accuracies, win, _share(found.get("kl")))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
