"""Process reward: a score for each step of a solution (Uesato et al. 2022; Lightman et al. 2023).

A step is a line, or a sentence of one. It is right if every equation in it holds and, for the last step, if it ends in the
right answer, where that is known and a number. A step without either has no label. The score of a step is the reward model's
head read at its last token: the log-odds that it is right.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.core.errors import InputError
from tasks.core.statistics import wilson
from tasks.models.batch import Batch, PairSet, collate
from tasks.models.compute import at_once
from tasks.models.reward import ROWS_AT_ONCE, as_read_by, token_scores
from tasks.models.text import decode, encode_completions_with_ends
from tasks.rewards.equations import claims
from tasks.rewards.verifier import is_correct

STEP = re.compile(r"\S(?:.*?[.!?;](?=\s|$)|.*)")  # within a line: up to a stop that ends a word, or to the end


@dataclass(frozen=True)
class Step:
    """end: where it ends in the text; right: None where nothing says so."""

    text: str
    end: int
    right: bool | None


def steps_of(text: str, answer: str | None, verifier: str) -> list[Step]:
    found = list(STEP.finditer(text))
    steps = []
    for number, match in enumerate(found, start=1):
        held = claims(match[0])
        if number == len(found) and answer is not None and verifier == "number":
            held.append(bool(is_correct(match[0], answer, verifier)))
        steps.append(Step(match[0], match.end(), all(held) if held else None))
    return steps


class StepSet:
    """The labelled steps of the completions of pairs, by the token each ends at."""

    def __init__(self, pairs: PairSet, answers: Mapping[str, str | None], verifier: str, tokenizer: Any):
        """answers: by prompt. Raises InputError if no step of any completion can be checked."""
        self.ends, self.right = [], []
        for side in ("chosen", "rejected"):
            found = [steps_of(row[side], answers.get(row["prompt"]), verifier) for row in pairs.rows]
            labelled = [[step for step in steps if step.right is not None] for steps in found]
            ends = [[step.end for step in steps] for steps in labelled]
            self.ends.append(encode_completions_with_ends(tokenizer, [row[side] for row in pairs.rows], ends)[1])
            self.right.append([[float(bool(step.right)) for step in steps] for steps in labelled])
        if not any(steps for side in self.ends for steps in side):
            raise InputError(
                "reward_model.process_coef: no step of the pairs can be checked; it needs equations such as 3+4=7, or answers"
            )

    def count(self, indices: Sequence[int]) -> int:
        """Labelled steps of these pairs."""
        return sum(len(side[i]) for side in self.ends for i in indices)

    def scores(self, reward_model: Any, batch: Batch, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(log-odds, 1 if right else 0) of every labelled step of these pairs: (steps,). batch: that of the pairs."""
        ends = [self.ends[side][i] for side in (0, 1) for i in indices]
        right = [label for side in (0, 1) for i in indices for label in self.right[side][i]]
        rows = [row for row, steps in enumerate(ends) for _ in steps]
        scores = token_scores(reward_model, batch)[rows, [end for steps in ends for end in steps]]
        return scores, torch.tensor(right, device=scores.device)


@torch.no_grad()
def step_figures(reward_model: Any, pairs: PairSet, steps: StepSet) -> dict[str, float]:
    """Every completion once per pair that shows it; step_auc is left out where all steps, or none, are right."""
    from sklearn.metrics import roc_auc_score

    found = [
        steps.scores(reward_model, pairs.batch(piece), piece) for piece in pairs.by_length(at_once(reward_model, ROWS_AT_ONCE))
    ]
    scores, right = (torch.cat(part).cpu() for part in zip(*found, strict=True))
    accuracy, low, high = wilson(int(((scores > 0) == (right > 0.5)).sum()), len(right))
    share = right.mean().item()
    figures = {"step_accuracy": accuracy, "step_accuracy_low": low, "step_accuracy_high": high, "steps": float(len(right))}
    figures["step_majority"] = max(share, 1 - share)
    return figures | ({"step_auc": float(roc_auc_score(right, scores))} if 0 < share < 1 else {})


@torch.no_grad()
def step_scores(reward_model: Any, batch: Batch, tokenizer: Any) -> list[list[float]]:
    """Log-odds that each step of each completion is right. tokenizer: what the batch's ids belong to.

    The reward model reads the text again: a sample may be spelt in other tokens than the same text when it was trained on.
    """
    own = reward_model.tokenizer
    texts = [decode(tokenizer, ids) for ids in batch.completions()]
    ends = [[step.end for step in steps_of(text, None, "number")] for text in texts]
    completions, tokens = encode_completions_with_ends(own, texts, ends)
    prompts = as_read_by(reward_model, batch, tokenizer).prompts()
    read = collate(prompts, completions, own.pad_token_id, str(batch.prompt_ids.device))
    found: list[list[float]] = [[] for _ in texts]
    for rows, micro in read.micro_batches(at_once(reward_model, ROWS_AT_ONCE)):
        for row, scores in zip(rows.tolist(), token_scores(reward_model, micro), strict=True):
            found[row] = scores[tokens[row]].tolist()
    return found


def process_score(scores: Sequence[float]) -> float:
    """σ of the lowest step: a chain is as good as its weakest link (Wang et al. 2024, Math-Shepherd). Without a step 0."""
    return float(torch.sigmoid(torch.tensor(min(scores)))) if scores else 0.0
