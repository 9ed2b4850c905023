"""Results as pages show them: from the files that `python -m docs.record` has written, and from nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.files import read_json

NONE = "No sweep is recorded yet. `python -m docs.record .scratch/compare/<name>` records one that has ended."
NOTE = """The interval beside a gain (95 %) and p are over seeds, p after Holm's correction for the column. The interval of
these models is over the prompts of all seeds together: it says nothing of another training run. With one seed there is no
other, and p is of these models."""
KINDS = ("sampled", "greedy")
Result = dict[str, Any]  # as docs/record.py makes it


def read_results(folder: Path) -> list[Result]:
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


def results_tables(results: Sequence[Result]) -> str:
    return "\n\n".join(map(_section, results)) or NONE


def speed_table(file: Path) -> str:
    """What `make bench` has measured."""
    if not file.exists():
        return "Nothing is recorded yet."
    result = read_json(file)
    heads = ["what", "shape", "rows", "rows of a prompt", "before, s", "after, s", "ratio"]
    body = [
        [row["what"], row["shape"], row["rows"], row["group"], f"{row['before']:.3f}", f"{row['after']:.3f}",
         f"{row['ratio']:.2f} ({row['least']:.2f} to {row['largest']:.2f})"]
        for row in result["rows"]
    ]  # fmt: skip
    return f"{origin_line(result)} {result['runs']} runs of each.\n\n{_table(heads, body)}"


def rounding_table(file: Path) -> str:
    """What `python -m tests.bench.rounding` has measured."""
    if not file.exists():
        return "Nothing is recorded yet."
    result = read_json(file)
    ways = [key for key in result["rows"][0] if key != "variant"]
    body = [
        [row["variant"], *(f"{_percent(row[way]['accuracy'])}, {_percent(row[way]['sampled_accuracy'])}" for way in ways)]
        for row in result["rows"]
    ]
    return f"{origin_line(result)}\n\n{_table(['', *ways], body)}"


def curve(algorithm: str, results: Sequence[Result]) -> list[str]:
    """The course of a training in the first sweep that has it: a drawing, and what is drawn."""
    for result in results:
        if found := result["curves"].get(algorithm):
            steps, values = found["steps"], [f"{value:.3f}" for value in found["values"]]
            drawing = [
                "```mermaid", "xychart-beta", f'    x-axis "step" {steps[0]} --> {steps[-1]}',
                f'    y-axis "{found["metric"]}"', f"    line [{', '.join(values)}]", "```",
            ]  # fmt: skip
            said = f"`{found['metric']}` by step, mean of {found['runs']} runs of the sweep [{result['name']}](../results.md)."
            return ["## Recorded curve", said, "\n".join(drawing)]
    return []


def origin_line(result: Result) -> str:
    """Which code found it, when and where."""
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    changed = ", with further changes" if result["dirty"] else ""
    return f"Commit `{result['commit'][:12]}`{changed}; recorded {result['date']}; {machine}."


def _section(result: Result) -> str:
    parts = [
        f"## {result['name']}",
        f"What varies: {', '.join(f'`{key}`' for key in result['keys'])}. {result['ended']} of {result['variants']} variants "
        f"ended well. {origin_line(result)}",
        _takeaways(result["takeaways"]), _gains(result["gains"]), _differences(result["differences"]),
        _models(result["models"]), _stages(result["stages"]),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))


def _takeaways(findings: Sequence[Result]) -> str:
    """Of a sweep over data/variants/takeaways.yaml."""
    parts = []
    for number, finding in enumerate(findings, start=1):
        body = [[each["says"], _points(each, "mean"), _p(each["p_holm"])] for each in finding["claims"]]
        parts.append(f"**{number}. {finding['title']}.** {finding['verdict']} In points of {finding['what']}, over seeds:")
        parts.append(_table(["claim", "difference", "p"], body))
    return "\n\n".join(parts)


def _gains(rows: Sequence[Result]) -> str:
    """What every policy gains on SFT."""
    if not rows:
        return ""
    heads = ["policy", "seeds × prompts"]
    for kind in KINDS:
        heads += [f"{kind}, %", "gain, points", "p", "of these models"]
    heads += ["win rate", "KL", "tokens", "seconds", "alarms"]
    groups = len({row["group"] for row in rows}) > 1
    body = []
    for row in rows:
        policy = row["model"] != "sft"
        cells = [f"{row['model']}, {row['group']}" if groups else row["model"], _size(row) if policy else row["seeds"]]
        for found in (row[kind] or {} for kind in KINDS):
            cells += [_percent(found.get("accuracy")), *(_decided(found, "gain") if policy else [""] * 3)]
        numbers = [_number(row.get("win_rate"), ".3f"), _number(row.get("kl"), ".2f")]
        numbers += [_number(row.get("tokens"), ",.0f"), _number(row.get("seconds"), ".0f")]
        cells += numbers if policy else [""] * 4
        body.append([*cells, ", ".join(f"{alarm} {count}/{row['seeds']}" for alarm, count in row["alarms"].items())])
    return f"{NOTE}\n\n{_table(heads, body)}"


def _differences(rows: Sequence[Result]) -> str:
    """Each variant against the reference, the same model in both."""
    if not rows:
        return ""
    heads = [f"against {rows[0]['reference']}", "seeds × prompts"]
    for kind in KINDS:
        heads += [f"{kind}, points", "p", "of these models"]
    body = [
        [f"{row['model']}, {row['group']}", _size(row)]
        + [cell for kind in KINDS for cell in _decided(row[kind] or {}, "difference")]
        for row in rows
    ]
    return _table(heads, body)


def _size(row: Result) -> str:
    return f"{row['seeds']} × {next((row[kind]['prompts'] for kind in KINDS if row[kind]), '')}"


def _decided(found: Result, key: str) -> list[str]:
    """The figure with its interval over seeds, p after Holm, the interval over the prompts of these models."""
    if not found:
        return [""] * 3
    several = len(found["by_seed"]) > 1
    shown = f"{100 * found[key]:+.1f} {_between(found, '') if several else ''}".strip()
    return [shown, _p(found["p_holm"]), _between(found, "models") if several else _between(found, "")]


def _models(models: dict[str, dict[str, Result]]) -> str:
    """Of every variant the figures of its SFT model, its reward model and its choice of prompts."""
    heads = ["variant", "SFT greedy, %", "sampled, %", "sampled cooler, %", "reward model: held-out pairs, %",
             "correlation with the verifier", "Prompt-OIRL, %", "gain on the best prompt, points"]  # fmt: skip
    body = []
    for name, found in models.items():
        sft, reward, chosen = (found.get(key, {}) for key in ("sft", "reward_model", "prompt_oirl"))
        pairs = f"{_percent(reward.get('accuracy'))} {_interval(reward, 'accuracy')}".strip()
        cooler = found.get("control", {}).get("cool_sft", {})
        cells = [_percent(each) for each in (sft.get("accuracy"), sft.get("sampled_accuracy"), cooler.get("sampled_accuracy"))]
        cells += [pairs, _number(reward.get("gold_correlation"), ".3f")]
        body.append([name, *cells, _percent(chosen.get("success")), _points(chosen, "gain")])
    return _table(heads, body) if body else ""


def _stages(stages: dict[str, Result]) -> str:
    heads = ["stage", "runs", "seconds, median", "peak MiB, median"]
    body = [
        [f"`{name}`", found["runs"], _number(found["seconds"], ".0f"), _number(found["peak_memory_mib"], ".0f")]
        for name, found in stages.items()
    ]
    return _table(heads, body) if body else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines])


def _number(value: float | None, style: str) -> str:
    return "" if value is None else f"{value:{style}}"


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share, ".1f")


def _points(found: Result, key: str) -> str:
    if found.get(key) is None:
        return ""
    interval = _between(found, key) or _between(found, "")
    return f"{100 * found[key]:+.1f} {interval}".strip()


def _between(found: Result, key: str) -> str:
    low, high = (found.get(f"{key}_{end}".lstrip("_")) for end in ("low", "high"))
    return "" if low is None or high is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def _interval(found: Result, key: str) -> str:
    low, high = found.get(f"{key}_low"), found.get(f"{key}_high")
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "<.001"
