"""Two experiments on a prompt log, which may come from anywhere:

    python -m tasks.prompt_oirl.experiment honest    data/prompt_logs/svamp.yaml --encoder FOLDER
    python -m tasks.prompt_oirl.experiment published data/prompt_logs/svamp_16_prompts.yaml --encoder FOLDER --learner trees

honest      The log's own split is ignored. Five folds of distinct question texts; each is scored by an r̂ fitted on the other
            four, and compared with the prompt that was best on those four. Unseen prompts: those without training calls in
            the log, on the questions of the fold; there `best_prompt` is the best of them in hindsight.
published   Sun et al. 2024 (arXiv 2309.06553): the log's split, every subset of K = 1..6 training prompts (--k for some K),
            reward accuracy and precision on seen and unseen prompts, and the success of the choice among the training prompts,
            among the unseen ones, and among all. Where questions of the test part are also in train, this flatters.

Nothing is tuned here: the recipe is fixed in tasks/prompt_oirl/learners.py.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_json
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log
from tasks.prompt_oirl.answers import Answers, Array, folds
from tasks.prompt_oirl.encoders import HiddenStates, cached
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.selector import fit

FOLDS = 5


def honest(rows: Sequence[Row], model: HiddenStates | None, learner: str, seed: int) -> dict[str, Any]:
    """Figures over all questions, each scored by an r̂ that never saw its text."""
    trained, unseen = prompt_ids(rows)
    table = Answers.of(rows)
    answers = table.under(trained)
    fold = folds(answers.queries, FOLDS, seed)
    others = [table.prompts[prompt_id] for prompt_id in unseen]
    chances, best = np.zeros((len(answers), len(trained))), np.zeros(len(answers), dtype=int)
    of_others = np.zeros((len(answers), len(unseen)))
    for number in range(FOLDS):
        training, test = answers.of_rows(np.flatnonzero(fold != number)), np.flatnonzero(fold == number)
        selector = fit(training, model, learner, seeds.derive(seed, "fit", number))
        queries = [answers.queries[row] for row in test]
        chances[test], best[test] = selector.probabilities(queries), training.success.argmax()
        if unseen:
            of_others[test] = selector.probabilities(queries, dict(zip(unseen, others, strict=True)))
    result: dict[str, Any] = {"questions": len(answers), "seen_prompts": figures(chances, answers, best, seed)}
    if unseen:
        there = Answers.of([row for row in rows if row["prompt_id"] in unseen]).under(unseen)
        place = {query: row for row, query in enumerate(answers.queries)}
        kept = [row for row, query in enumerate(there.queries) if query in place]
        there, order = there.of_rows(np.array(kept)), np.array([place[there.queries[row]] for row in kept])
        at_random = np.full(len(there), there.success.argmax())  # the best of them in hindsight
        result["unseen_prompts"] = figures(of_others[order], there, at_random, seed)
    return result


def published(
    rows: Sequence[Row], model: HiddenStates | None, learner: str, seed: int, ks: Sequence[int]
) -> list[dict[str, Any]]:
    """One row of figures per subset of the training prompts."""
    trained, unseen = prompt_ids(rows)
    train, test = (Answers.of([row for row in rows if row["split"] == split]) for split in ("train", "test"))
    results = []
    for k in ks:
        for subset in itertools.combinations(trained, k):
            selector = fit(train.under(subset), model, learner, seed)
            best = max(subset, key=lambda prompt_id: train.success[list(train.prompts).index(prompt_id)])
            found: dict[str, Any] = {"k": k, "prompts": list(subset), "best_prompt": best}
            for name, candidates in (("seen", list(subset)), ("unseen", unseen), ("all", [*subset, *unseen])):
                if candidates:
                    there = test.under(candidates)
                    texts = None if name == "seen" else there.prompts
                    chances = selector.probabilities(there.queries, texts)
                    column = candidates.index(best) if best in candidates else int(there.success.argmax())
                    found[name] = figures(chances, there, np.full(len(there), column), seed)
            found["single"] = dict(zip(test.prompts, test.success.tolist(), strict=True))
            results.append(found)
            print(line(found), flush=True)
    return results


def self_critique(rows: Sequence[Row], critics: Sequence[Row], prompt_ids: Sequence[str]) -> float:
    """Success when every test call gets the prompt whose answer the language model itself is surest of (--critics).

    critics: {row, prompt_id, confidence}, row: the number of the test call under its prompt.
    """
    confidence = {(row["prompt_id"], row["row"]): row["confidence"] for row in critics}
    correct: dict[str, list[float]] = {prompt_id: [] for prompt_id in prompt_ids}
    for row in rows:
        if row["split"] == "test" and row["prompt_id"] in correct:
            correct[row["prompt_id"]].append(float(row["correct"]))
    right: Array = np.array([correct[prompt_id] for prompt_id in prompt_ids])
    says = np.array([[confidence.get((id, call)) or 0.0 for call in range(right.shape[1])] for id in prompt_ids])
    return float(right[says.argmax(axis=0), np.arange(right.shape[1])].mean())


def prompt_ids(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """(with training calls, without), in the order of the log."""
    every = list(dict.fromkeys(row["prompt_id"] for row in rows))
    trained = {row["prompt_id"] for row in rows if row["split"] == "train"}
    return [id for id in every if id in trained], [id for id in every if id not in trained]


def line(found: dict[str, Any]) -> str:
    """K, the subset, and in percent: best prompt, choice among seen, unseen and all; accuracy and precision of r̂."""
    parts = [f"{found['k']} {'+'.join(found['prompts'])}: best {100 * found['seen']['best_prompt_success']:.1f}"]
    for name in ("seen", "unseen", "all"):
        if name in found:
            one = found[name]
            parts.append(
                f"{name} {100 * one['success']:.1f} (acc {100 * one['accuracy']:.1f}, prec {100 * one.get('precision', 0):.1f})"
            )
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["honest", "published"])
    parser.add_argument("log", type=Path)
    parser.add_argument("--encoder", type=Path, help="folder of a transformer; without it, TF-IDF and surface features")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learner", choices=["kernel", "mlp", "mean", "trees"], default="mean")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--critics", type=Path, help="parquet: what the language model thinks of each of its test answers")
    parser.add_argument("--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="which rows of --critics")
    parser.add_argument("--out", type=Path, help="a JSON file for all figures")
    arguments = parser.parse_args()
    try:
        began = time.perf_counter()
        source = PromptLogConfig(source=arguments.log.as_posix(), split="given", fold=0)
        rows = read_prompt_log(source, arguments.log)
        model = HiddenStates(arguments.encoder, arguments.layers) if arguments.encoder else None
        if model:
            cached(model, list(dict.fromkeys(row["query"] for row in rows)))
        embedded = time.perf_counter()
        result: Any
        if arguments.experiment == "honest":
            result = honest(rows, model, arguments.learner, arguments.seed)
            for name, value in result.items():
                print(name, value)
        else:
            result = published(rows, model, arguments.learner, arguments.seed, arguments.k)
            if arguments.critics:
                wanted = dict(pair.split("=", 1) for pair in arguments.where)
                critics = [row for row in read_table(arguments.critics) if all(row[key] == wanted[key] for key in wanted)]
                print(f"self-critique {100 * self_critique(rows, critics, prompt_ids(rows)[0]):.1f}")
        print(f"{embedded - began:.1f} s to read and embed, {time.perf_counter() - embedded:.1f} s for the experiment")
        if arguments.out:
            write_json(arguments.out, result)
    except InputError as error:
        sys.exit(f"experiment: {error}")


if __name__ == "__main__":
    main()
