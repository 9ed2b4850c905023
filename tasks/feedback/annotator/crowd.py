"""What is asked about the samples of the SFT model, and what simulated annotators answer.

One prompt is one question, put to one annotator:

  pairwise     which of two completions is better, for at most `pairs_per_prompt` pairs
  ranking      all its completions, from best to worst
  rating       each from 1 to 5
  thumbs       each up or down
  correction   at most `pairs_per_prompt` completions; the solution is written in place of each he likes less than it

Where right answers count, one pair for `contrast_rate` of the prompts is a right solution against a colleague's mistake in the
same format; for the other kinds both are among the completions. Without these, "shorter" is mostly "right" among the samples of
a weak model, and the reward model learns length.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from tasks.core import seeds
from tasks.core.files import Row
from tasks.feedback.annotator.choices import (
    DECISIVE,
    TIE,
    Candidate,
    Person,
    choose_pairs,
    grade,
    people,
    prefers_first,
    probability_first,
    rank,
    utility,
)
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.text import encode_completion
from tasks.rewards.functions import FUNCTIONS, FunctionsConfig
from tasks.rewards.verifier import is_correct

LOWEST, HIGHEST = 1, 5  # ratings

Shown = tuple[Row, str, list[Candidate]]  # a prompt, its split, the samples that can be read


@dataclass(frozen=True)
class Truth:
    """What a completion is worth, before any noise."""

    config: CollectPreferencesConfig
    functions: FunctionsConfig
    verifier: str

    def __call__(self, text: str, num_tokens: int, row: Row) -> Candidate:
        weights = self.config.utility
        components = {name: FUNCTIONS[name](text, self.functions) for name in weights if name in FUNCTIONS}
        if "verifier" in weights:
            components["verifier"] = float(bool(is_correct(text, row["answer"], self.verifier)))
        worth = utility(components, weights, num_tokens, self.config.cost_per_token)
        return Candidate(text, worth, components, num_tokens)


@dataclass(frozen=True)
class Crowd:
    """The annotators and how they answer."""

    config: CollectPreferencesConfig
    truth: Truth
    tokenizer: Any
    seed: int
    annotators: list[Person]

    def asked(self, row: Row) -> Person:
        """Who is asked about this prompt."""
        return seeds.stream(self.seed, "asked", row["id"]).choice(self.annotators)

    def written(self, text: str, row: Row) -> Candidate:
        return self.truth(text, len(encode_completion(self.tokenizer, text)), row)

    def prefers(self, person: Person, first: Candidate, second: Candidate, chance: random.Random) -> bool:
        return prefers_first(person.sees(first), person.sees(second), self.config.bradley_terry_temperature, chance)


def make_crowd(config: CollectPreferencesConfig, truth: Truth, tokenizer: Any, seed: int) -> Crowd:
    own = (config.utility, config.cost_per_token, config.length_bias, config.disagreement)
    return Crowd(config, truth, tokenizer, seed, people(config.annotators, *own, seed))


def compare(shown: Sequence[Shown], crowd: Crowd) -> list[Row]:
    """Pairs, each asked once."""
    pairs: list[Row] = []
    for row, split, candidates in shown:
        for better, worse in questions(row, candidates, crowd):
            chance = seeds.stream(crowd.seed, "answer", len(pairs))
            agrees = crowd.prefers(crowd.asked(row), better, worse, chance)
            chosen, rejected = (better, worse) if agrees else (worse, better)
            pairs.append(pair(row, chosen, rejected, split, len(pairs)))
    return pairs


def correct(shown: Sequence[Shown], crowd: Crowd) -> list[Row]:
    """Pairs (correction, original). What is hardly better or worse than the solution is left as it is."""
    pairs: list[Row] = []
    for row, split, candidates in shown:
        solution = crowd.written(row["solution"], row)
        originals = [each for each in different(candidates) if abs(each.utility - solution.utility) > TIE]
        for original in originals[: crowd.config.pairs_per_prompt]:
            chance = seeds.stream(crowd.seed, "correction", row["id"], original.text)
            if crowd.prefers(crowd.asked(row), solution, original, chance):
                pairs.append(pair(row, solution, original, split, len(pairs)))
    return pairs


def judge_each(shown: Sequence[Shown], crowd: Crowd) -> list[Row]:
    """Rows of data/feedback.parquet, with their `utility`. A prompt with fewer than two completions is not asked about."""
    answer = {"ranking": rank_all, "rating": rate, "thumbs": thumb}[crowd.config.kind]
    judged: list[Row] = []
    for row, split, candidates in shown:
        offered = different([*candidates, *contrast(row, candidates, crowd)])
        if len(offered) < 2:
            continue
        person = crowd.asked(row)
        values = answer([person.sees(each) for each in offered], crowd, seeds.stream(crowd.seed, "judgement", row["id"]))
        question = {
            "id": row["id"],
            "prompt": row["prompt"],
            "kind": crowd.config.kind,
            "annotator": person.name,
            "split": split,
        }
        pairs = zip(offered, values, strict=True)
        judged += [question | {"completion": each.text, "value": value, "utility": each.utility} for each, value in pairs]
    return judged


def rank_all(seen: Sequence[float], crowd: Crowd, chance: random.Random) -> list[float]:
    return [float(place) for place in rank(seen, crowd.config.bradley_terry_temperature, chance)]


def rate(seen: Sequence[float], crowd: Crowd, chance: random.Random) -> list[float]:
    return [LOWEST + float(each) for each in _grades(seen, HIGHEST - LOWEST + 1, crowd, chance)]


def thumb(seen: Sequence[float], crowd: Crowd, chance: random.Random) -> list[float]:
    return [float(each) for each in _grades(seen, 2, crowd, chance)]


def _grades(seen: Sequence[float], levels: int, crowd: Crowd, chance: random.Random) -> list[int]:
    """Components lie between 0 and 1, so the weights bound the utility but for its cost in tokens."""
    weights = crowd.config.utility.values()
    lowest, highest = sum(min(0.0, weight) for weight in weights), sum(max(0.0, weight) for weight in weights)
    temperature = crowd.config.bradley_terry_temperature
    return [grade(each, lowest, highest, levels, temperature, chance) for each in seen]


def agreement(shown: Sequence[Shown], crowd: Crowd) -> float:
    """How often two different annotators would give the same answer, over all pairs of samples whose utilities differ, without
    drawing any; of a single annotator, he himself when asked twice."""
    shares = []
    for _, _, candidates in shown:
        for better, worse in choose_pairs(candidates, len(candidates) ** 2, 0.0, random.Random(0)):
            gaps = [person.sees(better) - person.sees(worse) for person in crowd.annotators]
            first = [probability_first(gap, crowd.config.bradley_terry_temperature) for gap in gaps]
            each = list(permutations(first, 2)) or [(first[0], first[0])]
            shares += [p * q + (1 - p) * (1 - q) for p, q in each]
    return sum(shares) / len(shares) if shares else 1.0


def questions(row: Row, candidates: list[Candidate], crowd: Crowd) -> list[tuple[Candidate, Candidate]]:
    """The pairs (better, worse) to ask about for one prompt."""
    config, chance = crowd.config, seeds.stream(crowd.seed, "questions", row["id"])
    contrasted = _contrasts(row, crowd, chance)
    if not contrasted:
        return choose_pairs(candidates, config.pairs_per_prompt, config.decisive_rate, chance)
    others = choose_pairs(candidates, config.pairs_per_prompt - 1, 0.0, chance)
    right, mistake = _right_and_wrong(row, candidates, crowd)
    return [*others, (right, mistake)]


def contrast(row: Row, candidates: list[Candidate], crowd: Crowd) -> list[Candidate]:
    """The same two as completions to judge, for the same share of the prompts."""
    contrasted = _contrasts(row, crowd, seeds.stream(crowd.seed, "questions", row["id"]))
    return list(_right_and_wrong(row, candidates, crowd)) if contrasted else []


def _contrasts(row: Row, crowd: Crowd, chance: random.Random) -> bool:
    possible = "verifier" in crowd.config.utility and row["solution"] and row["mistake"]
    return bool(possible and chance.random() < crowd.config.contrast_rate)


def _right_and_wrong(row: Row, candidates: list[Candidate], crowd: Crowd) -> tuple[Candidate, Candidate]:
    mistake = crowd.written(row["mistake"], row)
    best = max(candidates, key=lambda candidate: candidate.utility, default=None)
    right = best if best and best.utility - mistake.utility > DECISIVE else crowd.written(row["solution"], row)
    return right, mistake


def different(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each text once."""
    found: dict[str, Candidate] = {}
    for each in candidates:
        found.setdefault(each.text.strip(), each)
    return list(found.values())


def pair(row: Row, chosen: Candidate, rejected: Candidate, split: str, number: int) -> Row:
    return {
        "id": f"{row['id']}-{number}",
        "prompt": row["prompt"],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "split": split,
        "gap": round(chosen.utility - rejected.utility, 6),
    }
