"""A prompt log from the traces of one's own application: a snapshot, so that what is learned from it can be learned again.

    python -m tasks.data.traces EXPERIMENT data/prompt_logs/app --query "{question}"

Writes app.jsonl, a row for each trace that loaded one version of a prompt from MLflow's registry and ended well, and app.yaml,
which describes it for `prompt_log.source` and pins it. A log that is there already is never written again: what has learned
from it names its sha256.

Columns: query; prompt, the text of the version; prompt_id, its URI; completion; correct, from the feedback; judged, whether
anybody gave it, which app.yaml asks for; trace_id.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.traces import read_traces
from tasks.data.templates import fill

ABOUT = """\
# Traces of the MLflow experiment {experiment}, as they were when `python -m tasks.data.traces` read them; without those that
# nobody has judged.
log:
  file: {file}
  sha256: {sha256}
  where: {{judged: true}}
"""
SAID = {"yes": True, "no": False}  # what MLflow's judges say


def rows_of(traces: list[Row], query: str, completion: str | None, feedback: str) -> tuple[list[Row], Counter[str]]:
    """(the log, why traces are not in it). query, completion: templates over inputs and outputs; None: the whole output."""
    rows, left_out = [], Counter[str]()
    for trace in traces:
        if not trace["ended"]:
            left_out["did not end well"] += 1
        elif not trace["prompts"]:
            left_out["loaded no version of a prompt"] += 1
        else:
            try:
                rows.append(_row(trace, query, completion, feedback))
            except InputError as error:
                raise InputError(f"trace {trace['trace_id']}: {error}") from None
    return rows, left_out


def _row(trace: Row, query: str, completion: str | None, feedback: str) -> Row:
    if len(trace["prompts"]) > 1:
        raise InputError(f"it loaded {', '.join(trace['prompts'])}; trace each call of the model by itself, with one prompt")
    [(uri, text)] = trace["prompts"].items()
    outputs = trace["outputs"]
    said = outputs if isinstance(outputs, str) else json.dumps(outputs, ensure_ascii=False)
    correct = _correct(trace["feedback"].get(feedback), feedback)
    return {
        "query": fill(query, _named(trace["inputs"], "inputs")),
        "prompt": text,
        "correct": correct,
        "prompt_id": uri,
        "completion": said if completion is None else fill(completion, _named(outputs, "outputs")),
        "judged": correct is not None,
        "trace_id": trace["trace_id"],
    }


def _named(values: Any, what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"its {what} have no names, found {json.dumps(values)[:40]}")
    return values


def _correct(value: Any, feedback: str) -> bool | None:
    value = SAID.get(str(value).casefold(), value)
    if value is not None and not isinstance(value, bool) and value not in (0, 1):
        raise InputError(f"its feedback `{feedback}` is {value!r}; it must be true or false, yes or no, or 1 or 0")
    return None if value is None else bool(value)


def write_log(experiment: str, out: Path, rows: list[Row]) -> Path:
    """Returns the description, a file for `prompt_log.source`."""
    file, described = out.with_name(f"{out.name}.jsonl"), out.with_name(f"{out.name}.yaml")
    if taken := next((each for each in (file, described) if each.exists()), None):
        raise InputError(f"{taken} is there already, and a log that may have been learned from stays; name another")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    pin = hashlib.sha256(text.encode()).hexdigest()
    described.write_text(ABOUT.format(experiment=experiment, file=json.dumps(str(file)), sha256=pin), encoding="utf-8")
    return described


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.data.traces", description="A prompt log from traces of MLflow.")
    parser.add_argument("experiment", help="of MLflow, whose traces are read")
    parser.add_argument("out", type=Path, help="the log without its suffix, as data/prompt_logs/app")
    parser.add_argument("--query", default="{query}", help="over the inputs of a trace; default: %(default)s")
    parser.add_argument("--completion", help="over the outputs of a trace; default: all of them")
    parser.add_argument("--feedback", default="correct", help="name of the feedback; default: %(default)s")
    asked = parser.parse_args()
    try:
        rows, left_out = rows_of(read_traces(asked.experiment), asked.query, asked.completion, asked.feedback)
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items()) or "none"
        if not rows:
            raise InputError(f"no trace of {asked.experiment} is a call under a prompt of the registry; left out: {reasons}")
        described = write_log(asked.experiment, asked.out, rows)
    except InputError as error:
        sys.exit(str(error))
    judged = sum(row["judged"] for row in rows)
    print(f"{described}: {len(rows)} calls, of which {judged} are judged; traces left out: {reasons}")


if __name__ == "__main__":
    main()
