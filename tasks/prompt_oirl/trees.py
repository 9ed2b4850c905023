"""The published learner: boosted trees on the embeddings of query and prompt side by side (Sun et al. 2024, arXiv 2309.06553).

How this differs from the paper
  - Histogram trees of scikit-learn with fewer, larger steps instead of 2000 rounds of XGBoost.
  - The calls of a (query, prompt) pair are one row, its target the share of right answers, its weight their number: the same
    cross-entropy on a tenth of the rows.
  - A query is given by its 64 leading principal axes, a prompt by its cosine with each training prompt: trees of all 1400
    numbers take twelve times as long and are no better on held-out training queries of SVAMP (AUC .791 against .792).

The trees are kept as arrays of nodes and walked by numpy, so nothing on disk is a pickle.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.learners import Array, State, principal_axes, sigmoid

AXES = 64  # of the queries
ROUNDS, LEARNING_RATE, LEAVES, BINS = 60, 0.1, 255, 32  # deep enough to remember a question, as the published trees do


def fit_trees(queries: Array, prompts: Array, answers: Answers, seed: int) -> State:
    """queries: (queries, features); prompts: (prompts, features)."""
    from sklearn._loss import HalfBinomialLoss  # private: the public classifier takes labels and no shares; sklearn is pinned
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        loss=HalfBinomialLoss(),
        max_iter=ROUNDS,
        learning_rate=LEARNING_RATE,
        max_leaf_nodes=LEAVES,
        max_bins=BINS,
        max_features=0.2,
        min_samples_leaf=2,
        early_stopping=False,
        random_state=seed % 2**32,
    )
    centre, axes = principal_axes(queries, AXES)
    state = {"trees.centre": centre, "trees.axes": axes, "trees.prompts": prompts}
    trees.fit(pairs(state, queries, prompts), answers.rates.ravel(), sample_weight=answers.calls.ravel())
    return state | nodes(trees)


def nodes(trees: Any) -> State:
    """(rounds, nodes) arrays of a fitted model; a leaf points at itself."""
    grown = [predictor.nodes for (predictor,) in trees._predictors]
    longest = max(map(len, grown))
    state: State = {"trees.base": np.asarray(trees._baseline_prediction, dtype=np.float32).ravel()}
    shape = (len(grown), longest)
    feature, left, right = np.zeros((3, *shape), dtype=np.int32)
    threshold, value = np.zeros((2, *shape), dtype=np.float64)
    for place, tree in enumerate(grown):
        leaf, own = tree["is_leaf"].astype(bool), np.arange(len(tree))
        feature[place, : len(tree)] = np.where(leaf, 0, tree["feature_idx"])
        threshold[place, : len(tree)] = np.where(leaf, 0, tree["num_threshold"])
        left[place, : len(tree)] = np.where(leaf, own, tree["left"])
        right[place, : len(tree)] = np.where(leaf, own, tree["right"])
        value[place, : len(tree)] = tree["value"]
    state |= {"trees.feature": feature, "trees.left": left, "trees.right": right}
    return state | {"trees.threshold": threshold, "trees.value": value}


def predict_trees(state: State, queries: Array, prompts: Array) -> Array:
    """(queries, prompts)"""
    rows = pairs(state, queries, prompts)
    scores = np.full(len(rows), state["trees.base"][0], dtype=np.float64)
    names = ("feature", "threshold", "left", "right", "value")
    for feature, threshold, left, right, value in zip(*(state[f"trees.{name}"] for name in names), strict=True):
        place: NDArray[Any] = np.zeros(len(rows), dtype=np.int32)
        moving = np.arange(len(rows))
        while len(moving):
            node = place[moving]
            place[moving] = np.where(rows[moving, feature[node]] <= threshold[node], left[node], right[node])
            moving = moving[place[moving] != node]
        scores += value[place]
    return sigmoid(scores).reshape(len(queries), len(prompts))


def pairs(state: State, queries: Array, prompts: Array) -> Array:
    """What the trees see of each pair, query by query: (queries · prompts, AXES + training prompts)."""
    rows, columns = (queries - state["trees.centre"]) @ state["trees.axes"], prompts @ state["trees.prompts"].T
    return np.concatenate([np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))], axis=1)
