"""What the page of a pipeline run in MLflow says first: its name, the figures that matter, and a description.

All figures of a stage are in its own run, one link away; all of the flow's are in its artifact metrics.json.
"""

from collections.abc import Sequence
from typing import Any

LONGEST_NAME = 60  # MLflow's lists show no more
MOST_METRICS = 40
LEADING = ("sampled_accuracy", "win_rate", "accuracy", "kl", "contaminated", "success", "gain")  # the first of them first
NEVER_MADE = ("never run", "not in DVC's cache", "missing")

Metrics = dict[str, dict[str, float]]  # of each stage


def run_name(status: str, rows: Sequence[dict[str, Any]]) -> str:
    """What tells this flow from others in a list: how it ended if not well, or else why its first stage was not simply cached.

    rows: stage, state and why of each.
    """
    if status == "LOST":
        return "worker lost"
    if status == "KILLED":
        return "cancelled"
    if failed := [row["stage"] for row in rows if row["state"] == "failed"]:
        return f"{failed[0]} failed"[:LONGEST_NAME]
    causes = [row["why"].removeprefix("params ").partition(";")[0] for row in rows if row["state"] != "cached"]
    if not causes:
        return "nothing changed"
    if causes[0].endswith(NEVER_MADE):
        return "first run" if len(causes) == len(rows) else "what was missing"
    return causes[0] if len(causes[0]) <= LONGEST_NAME else f"{causes[0][: LONGEST_NAME - 1]}…"


def leading(metrics: Metrics) -> dict[str, float]:
    """`stage/metric` for the figures that decide, at most MOST_METRICS."""
    found = {
        f"{stage}/{key}": value
        for word in LEADING
        for stage, values in metrics.items()
        for key, value in values.items()
        if key.rpartition(".")[2] == word
    }
    return dict(list(found.items())[:MOST_METRICS])


def note(rows: Sequence[dict[str, Any]], metrics: Metrics, gate: str, experiment_id: str) -> str:
    """In Markdown: the verdict, a table of policies, and the stages with links to the runs that made their outputs, which for a
    cached stage is an earlier one."""
    lines = [f"**{gate}**", ""] if gate else []
    found = metrics.get("evaluate", {})
    policies = {key.rpartition(".")[0]: None for key in found if key.startswith("policy.") and key.endswith(".kl")}
    made_by = {row["stage"]: row["run_id"] for row in rows}
    if policies:
        lines += ["| policy | sampled accuracy | accuracy | win rate against SFT | KL to SFT |", "|---|---|---|---|---|"]
    for policy in ["sft", *policies] if policies else []:
        _, _, name = policy.partition(".")
        stage = f"policy@{name.replace('.', '-')}" if name else "sft"
        cells = [_interval(found, f"{policy}.{key}") for key in ("sampled_accuracy", "accuracy", "win_rate", "kl")]
        lines.append(f"| {_link(stage, made_by.get(stage, ''), experiment_id)} | {' | '.join(cells)} |")
    lines += [""] if policies else []
    if made_by.get("report"):
        lines += [f"The report page is an artifact of {_link('report', made_by['report'], experiment_id)}.", ""]
    lines += ["| stage | state | why |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['stage']} | {_link(row['state'], row['run_id'], experiment_id)} | {row['why']} |")
    return "\n".join(lines)


def policy_note(stage: str, figures: dict[str, float], pipeline_run_id: str, experiment_id: str) -> str:
    """Of the run of one policy."""
    said = {
        "sampled accuracy": "sampled_accuracy",
        "accuracy": "accuracy",
        "win rate against SFT": "win_rate",
        "KL to SFT": "kl",
    }
    lines = [f"- {words}: {_interval(figures, key)}" for words, key in said.items() if key in figures]
    return "\n".join([f"{stage}, evaluated in {_link('this pipeline run', pipeline_run_id, experiment_id)}", "", *lines])


def _interval(metrics: dict[str, float], key: str) -> str:
    """0.663 [0.637, 0.690]"""
    if key not in metrics:
        return "-"
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    return f"{metrics[key]:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def _link(words: str, run_id: str, experiment_id: str) -> str:
    return f"[{words}](#/experiments/{experiment_id}/runs/{run_id})" if run_id else words
