"""r̂ on fixed features, fitted, on disk and in use: queries in, the chance that each prompt gets them right out.

    selector = fit(answers, model, "mean", seed)
    chances = selector.probabilities(["How many apples ...?"])      # (queries, prompts)
    selector.prompt_ids[chances[0].argmax()]                        # the prompt to ask with

Calibration (Platt 1999): σ(a · logit r̂ + b), a and b fitted on a fifth of the queries that a first, smaller r̂ has not seen.

A prompt the log has never seen is scored by those it resembles (`trees` score it directly, as in the paper):

    r̂(x, p) = Σ_j w_j r̂_j(x),   w = softmax(cos(e(p), e(p_j)) / TEMPERATURE)

Nothing in the folder is run: weights are arrays, the encoder is a Hugging Face folder, the rest JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core import seeds
from tasks.core.files import read_json, write_json
from tasks.prompt_oirl.answers import Answers, Array, folds
from tasks.prompt_oirl.encoders import Encoder, HiddenStates, cached, lengths
from tasks.prompt_oirl.learners import ENSEMBLE, PREDICT, State, combine_kernel, fit_mlp, sigmoid, solve_kernel
from tasks.prompt_oirl.trees import fit_trees, predict_trees

TEMPERATURE = 0.1
TRIAL = 3000  # queries of the first r̂, at most
FLOOR = 0.005  # no chance is called nearer to 0 or 1


@dataclass
class Selector:
    prompts: dict[str, str]  # prompt_id -> text
    encoder: Encoder
    learner: str
    weights: State

    @property
    def prompt_ids(self) -> list[str]:
        return list(self.prompts)

    def probabilities(self, queries: Sequence[str], prompts: dict[str, str] | None = None) -> Array:
        """(queries, prompts), in the order of `prompt_ids`, or of other prompts by their texts."""
        scored = self.score(self.features(queries), list((prompts or {}).values()))
        return scored if prompts is None else scored[:, len(self.prompts) :]

    def features(self, queries: Sequence[str]) -> Array:
        return self.encoder.encode(queries)

    def score(self, features: Array, others: Sequence[str] = ()) -> Array:
        """(queries, own prompts and then others), of features of this encoder. others: texts of prompts without any label."""
        own = list(self.prompts.values())
        if self.learner == "trees":
            chances = predict_trees(self.weights, features, embed_prompts(self.encoder.model, [*own, *others]))
        else:
            chances = PREDICT[self.learner](self.weights, features)
            if others:
                chances = np.concatenate([chances, chances @ similarity(self.encoder.model, others, own).T], axis=1)
        slope, shift = self.weights["calibration"]
        return np.clip(sigmoid(slope * logit(chances) + shift), FLOOR, 1 - FLOOR)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text to the encoder; words and signs where there is none."""
        return lengths(self.encoder.model, texts)

    def unread(self, queries: Sequence[str]) -> list[int]:
        """How many tokens at the end of each query the encoder does not read."""
        return self.encoder.model.unread(queries) if self.encoder.model else [0] * len(queries)

    def save(self, folder: Path) -> None:
        write_json(folder / "prompts.json", self.prompts)
        write_json(folder / "selector.json", {"learner": self.learner, "has_encoder": self.encoder.model is not None})
        np.savez(folder / "weights.npz", **self.weights)  # type: ignore[arg-type]
        np.savez(folder / "features.npz", **self.encoder.state)  # type: ignore[arg-type]
        if self.encoder.model:
            self.encoder.model.save(folder / "encoder")

    @classmethod
    def load(cls, folder: Path) -> "Selector":
        says = read_json(folder / "selector.json")
        model = HiddenStates(folder / "encoder", remembers=False) if says["has_encoder"] else None
        encoder = Encoder(model, _arrays(folder / "features.npz"))
        return cls(read_json(folder / "prompts.json"), encoder, says["learner"], _arrays(folder / "weights.npz"))


def fit(answers: Answers, model: HiddenStates | None, learner: str, seed: int) -> Selector:
    """Of a table with no holes. learner: kernel, mlp, mean or trees. model: None for TF-IDF and surface features alone."""
    return Fitting(answers, model, learner, seed).under(list(answers.prompts))


def crossed(
    answers: Answers,
    keys: Sequence[str],
    queries: Sequence[str],
    model: HiddenStates | None,
    learner: str,
    seed: int,
    *purpose: object,
) -> Array:
    """Chances of the queries by an r̂ that has not seen them: two halves of the table score each other.

    keys: of the queries of the table; those of one key share a half. A query that is not in the table is scored by the second.
    """
    half = folds(keys, 2, seeds.derive(seed, *purpose))
    where = dict(zip(answers.queries, half, strict=True))
    side = np.array([where.get(query, 0) for query in queries])
    chances = np.zeros((len(queries), len(answers.prompts)))
    for each in (0, 1):
        scored = np.flatnonzero(side == each).tolist()
        if scored:
            selector = fit(answers.of_rows(np.flatnonzero(half != each)), model, learner, seeds.derive(seed, *purpose, each))
            chances[scored] = selector.probabilities([queries[row] for row in scored])
    return chances


class Fitting:
    """What the fits on any subset of the prompts have in common, computed once: features, and the kernel's equations."""

    def __init__(self, answers: Answers, model: HiddenStates | None, learner: str, seed: int):
        self.answers, self.learner, self.seed = answers, learner, seed
        self.encoder = Encoder.fit(model, answers.queries)
        self.features = self.encoder.encode(answers.queries)
        held_back = folds(answers.queries, 5, seeds.derive(seed, "calibration")) == 0
        trial = np.random.default_rng(seeds.derive(seed, "trial")).permutation(np.flatnonzero(~held_back))[:TRIAL]
        self.rest, self.parts = np.flatnonzero(held_back), [np.arange(len(answers)), np.sort(trial)]
        self.solved: list[State] = []
        if learner in ("kernel", "mean"):
            self.solved = [solve_kernel(self.features[rows], answers.of_rows(rows), seed) for rows in self.parts]

    def under(self, prompt_ids: Sequence[str]) -> Selector:
        answers = self.answers.under(prompt_ids)
        weights = self._fit(answers, 0)
        if self.learner == "trees":  # as published
            return Selector(answers.prompts, self.encoder, self.learner, weights | {"calibration": np.array([1.0, 0.0])})
        trial = self._fit(answers, 1)
        chances = PREDICT[self.learner](trial, self.features[self.rest])
        weights["calibration"] = platt(chances, answers.of_rows(self.rest))
        return Selector(answers.prompts, self.encoder, self.learner, weights)

    def _fit(self, answers: Answers, part: int) -> State:
        """part: 0 for all queries, 1 for the trial that is calibrated on the others: one network is enough for that."""
        features, columns = self.features[self.parts[part]], [list(self.answers.prompts).index(id) for id in answers.prompts]
        answers = answers.of_rows(self.parts[part])
        if self.learner == "trees":
            return fit_trees(features, embed_prompts(self.encoder.model, list(answers.prompts.values())), answers, self.seed)
        weights: State = {}
        if self.learner in ("kernel", "mean"):
            weights |= combine_kernel(self.solved[part], answers, columns)
        if self.learner in ("mlp", "mean"):
            weights |= fit_mlp(features, answers, self.seed, members=1 if part else ENSEMBLE)
        return weights


def platt(chances: Array, answers: Answers) -> Array:
    """(slope, shift) of least cross-entropy, by Newton's method."""
    scores, right, calls = logit(chances).ravel(), answers.right.ravel(), answers.calls.ravel()
    inputs, found = np.stack([scores, np.ones_like(scores)]), np.array([1.0, 0.0])
    for _ in range(25):
        means = sigmoid(found @ inputs)
        gradient = inputs @ (calls * means - right) + 1e-3 * (found - [1, 0])
        hessian = (inputs * calls * means * (1 - means)) @ inputs.T + 1e-3 * np.eye(2)
        found = found - np.linalg.solve(hessian, gradient)
    return np.asarray(found)


def similarity(model: HiddenStates | None, prompts: Sequence[str], seen: Sequence[str]) -> Array:
    """w: (prompts, seen), rows sum to 1."""
    new, old = embed_prompts(model, prompts), embed_prompts(model, seen)
    scores = new @ old.T / TEMPERATURE
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def embed_prompts(model: HiddenStates | None, prompts: Sequence[str]) -> Array:
    """Unit vectors: mean hidden states, or counts of character n-grams where there is no model."""
    if model is None:
        from sklearn.feature_extraction.text import HashingVectorizer

        counter = HashingVectorizer(n_features=4096, analyzer="char_wb", ngram_range=(2, 4), alternate_sign=False)
        return np.asarray(counter.transform(prompts).toarray())
    vectors = cached(model, prompts)[:, 0]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def logit(chances: Array) -> Array:
    clipped = np.clip(chances, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _arrays(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
