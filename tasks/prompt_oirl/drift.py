"""Does a fitted choice still hold? Are the queries that come now like those of its log, and do its chances come true?

    python -m tasks.prompt_oirl.drift new.jsonl
    python -m tasks.prompt_oirl.drift new.jsonl --model models:/prompt_oirl@champion

The file is like a prompt log (tasks/data/calls.py). A column `query` answers the first question; the second needs `correct` as
well, and `prompt_id` or `prompt`, which was asked.

queries, far_share   distinct queries; share of them that are far (tasks/prompt_oirl/reference.py), 1 % for the log itself
calls, queries_judged   labelled calls, of so many queries
right, promised      share of right answers of these calls; mean chance that was promised
brier, log_loss      of the chances
ece                  expected calibration error (Guo et al. 2017), in ten bins
recalibration_gain   by how much the log loss falls if chances become σ(a · logit r̂ + b), with a and b from one half of the
                     queries for the other and the other way round: what is wrong with the chances and can be known. Chances
                     that come true win nothing

*_low, *_high are 95 % intervals: Wilson's of far_share, else by bootstrap over queries. The choice has drifted if the whole
interval of far_share is above FAR, or that of recalibration_gain above GAIN. One sentence says so. The figures are a run
`drift` in MLflow.

Exit code 0: no drift; 3: drift; 1: bad input.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row, digest
from tasks.core.registry import served_folder
from tasks.core.statistics import ece, wilson
from tasks.core.tracking import Tracker
from tasks.data.calls import read_calls
from tasks.prompt_oirl.answers import Answers, Array, folds
from tasks.prompt_oirl.choose import Choosing, load_selector
from tasks.prompt_oirl.figures import weighted_bootstrap
from tasks.prompt_oirl.learners import sigmoid
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.scores import bins
from tasks.prompt_oirl.selector import logit, platt

FAR = 0.05
GAIN = 0.005  # nats a call: of chances near .5 that are wrong by .05
ENOUGH = 50  # judged queries
SEED = 0
DRIFTED = 3  # exit code; 2 is argparse's


@dataclass(frozen=True)
class Drift:
    figures: dict[str, float]
    reliability: list[Row]  # of tasks/prompt_oirl/scores.py; empty where too few calls are judged
    drifted: bool
    verdict: str


def check(selector: Choosing, reference: Reference, rows: Sequence[Row]) -> Drift:
    """rows: of read_calls. Raises InputError for a blank query and for a judged call under an unknown prompt."""
    for number, row in enumerate(rows):
        if not row["query"].strip():
            raise InputError(f"row {number}: the query is blank; leave the row out")
    queries = list(dict.fromkeys(row["query"] for row in rows))
    if not queries:
        raise InputError("there are no queries to check; bring some")
    far = int((reference.distances(selector.features(queries)) > 1).sum())
    share, far_low, far_high = wilson(far, len(queries))
    found = {"queries": float(len(queries)), "far_share": share, "far_share_low": far_low, "far_share_high": far_high}
    told = [f"{share:.1%} [{far_low:.1%}, {far_high:.1%}] of {len(queries)} queries are far from the log"]

    judged = Answers.of([known(row, number, selector) for number, row in enumerate(rows) if row["correct"] is not None])
    reliability: list[Row] = []
    if len(judged) < ENOUGH:
        told.append(f"{len(judged)} queries with `correct` do not show whether chances come true, {ENOUGH} are needed")
    else:
        columns = [list(selector.prompts).index(prompt_id) for prompt_id in judged.prompts]
        measured, reliability = calibration(selector.score(selector.features(judged.queries))[:, columns], judged)
        found |= measured
        low, high = found["recalibration_gain_low"], found["recalibration_gain_high"]
        told.append(
            f"of {len(judged)} judged queries {found['promised']:.1%} of the answers were promised to be right and "
            f"{found['right']:.1%} are, recalibration would gain {found['recalibration_gain']:.4f} [{low:.4f}, {high:.4f}] nats"
        )
    drifted = far_low > FAR or found.get("recalibration_gain_low", 0.0) > GAIN
    if drifted:
        told.append("ask new queries under every prompt, add the calls to the log and fit again")
    return Drift(found, reliability, drifted, f"{'drift' if drifted else 'no drift'}: {'; '.join(told)}")


def known(row: Row, number: int, selector: Choosing) -> Row:
    """With the id by which the model knows the prompt: by its text, or by its id where the row has no text."""
    prompt_id, text, there = row["prompt_id"], row["prompt"], selector.prompts
    same = [each for each in there if there[each] == text]
    if same and prompt_id not in same:
        prompt_id = same[0]
    if prompt_id not in there:
        raise InputError(
            f"row {number}: `correct` is that of an answer under prompt {prompt_id}, which the model does not know; "
            f"leave the row out, or name one of {', '.join(there)} as `prompt_id`"
        )
    if text is not None and not same:
        raise InputError(f"row {number}: the text of prompt {prompt_id} is not that in the log of the model; fit again with it")
    return row | {"prompt_id": prompt_id, "prompt": there[prompt_id]}


def calibration(chances: Array, judged: Answers) -> tuple[dict[str, float], list[Row]]:
    """(figures, reliability) of chances, (queries, prompts); a pair that was not asked has no part in them."""
    right, wrong = judged.right, judged.calls - judged.right
    calls = judged.calls.sum(axis=1)
    half = folds(judged.queries, 2, SEED)
    better = np.empty_like(chances)
    for side in (0, 1):
        slope, shift = platt(chances[half != side], judged.of_rows(np.flatnonzero(half != side)))
        better[half == side] = sigmoid(slope * logit(chances[half == side]) + shift)
    loss = log_loss(chances, right, wrong)
    sums = {
        "brier": (right * (1 - chances) ** 2 + wrong * chances**2).sum(axis=1),
        "log_loss": loss,
        "recalibration_gain": loss - log_loss(better, right, wrong),
        "right": right.sum(axis=1),
    }
    found = {"queries_judged": float(len(judged)), "calls": float(calls.sum())}
    found["promised"] = float((chances * judged.calls).sum() / calls.sum())
    for name, values in sums.items():
        low, high = weighted_bootstrap(values, calls, SEED)
        found |= {name: float(values.sum() / calls.sum()), f"{name}_low": low, f"{name}_high": high}
    asked = judged.calls > 0
    reliability = bins(chances[asked], right[asked], judged.calls[asked])
    return found | {"ece": ece(reliability)}, reliability


def log_loss(chances: Array, right: Array, wrong: Array) -> Array:
    """Over all calls of each query: (queries,)."""
    chances = np.clip(chances, 1e-6, 1 - 1e-6)
    return np.asarray(-(right * np.log(chances) + wrong * np.log(1 - chances)).sum(axis=1))


def check_file(file: Path, model: str) -> Drift:
    """Of a model of MLflow's registry. Tells MLflow."""
    with tempfile.TemporaryDirectory() as scratch:
        version, folder = served_folder(model, Path(scratch))
        try:
            selector, reference = load_selector(folder)
        except (OSError, KeyError):
            raise InputError(f"{version} is no choice of prompts that this code could read; fit it again") from None
        try:
            found = check(selector, reference, read_calls(file, needed=("query",)))
        except InputError as error:
            raise InputError(str(error) if str(file) in str(error) else f"{file}, {error}") from None
    tags = {"model": version, "drifted": str(found.drifted).lower()}
    tracker = Tracker("drift", tags, {"file": str(file), "md5": digest(file), "model": version})
    tracker.metrics(found.figures)
    tracker.table(found.reliability, "reliability")
    tracker.tag("mlflow.note.content", found.verdict)
    tracker.finish("FINISHED")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.prompt_oirl.drift", description="Does a fitted choice still hold?")
    parser.add_argument("file", type=Path, help="queries that came, and if known which answers were right")
    parser.add_argument("--model", default="models:/prompt_oirl@newest", help="default: %(default)s")
    asked = parser.parse_args()
    try:
        found = check_file(asked.file, asked.model)
    except InputError as error:
        sys.exit(str(error))
    print(found.verdict)
    sys.exit(DRIFTED if found.drifted else 0)


if __name__ == "__main__":
    main()
