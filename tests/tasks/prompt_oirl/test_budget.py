"""More than one call: who leads, when a policy stops, what a budget buys, and that an estimate from part of a log holds."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.prompt_oirl import frontier as frontiers
from tasks.prompt_oirl.budget import (
    Episodes,
    calls_of,
    chances_of,
    learn,
    learn_within,
    off_policy_value,
    order_of,
    play,
    replay,
    ridge,
)
from tasks.prompt_oirl.frontier import FOLDS, Frontier, frontier_rows, mixture
from tasks.prompt_oirl.replies import Replies
from tests.tasks.prompt_oirl.test_selector import rows_of

PROMPTS = {"plain": "Answer:", "steps": "Think step by step.", "twice": "Check it twice."}
ANSWERS = np.array([[0, 1, 1, 2], [0, 0, 1, 1]])
RIGHT = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])


def count(texts):
    return [len(text.split()) for text in texts]


def world(seed: int, queries: int = 4000) -> Episodes:
    """Each of four prompts knows the answer with the chance of the query, or errs at random."""
    chance = np.random.default_rng(seed)
    chances = np.tile(chance.uniform(0.2, 0.99, (queries, 1)), (1, 4))
    right = (chance.random((queries, 4)) < chances).astype(float)
    answers = np.where(right > 0, 0, chance.integers(1, 9, (queries, 4)))
    order = order_of(chances, np.arange(4.0)[::-1], "success")
    return play(answers, right, chances, np.ones((queries, 4)), order)


def test_the_leader_by_hand():
    order = np.tile(np.arange(4), (2, 1))
    episodes = play(ANSWERS, RIGHT, np.full((2, 4), 0.5), np.ones((2, 4)), order)
    assert episodes.right.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]  # of a tie the first answer leads
    surer = play(ANSWERS, RIGHT, np.array([[0.9, 0.2, 0.3, 0.1]] * 2), np.ones((2, 4)), order)
    assert surer.right[0].tolist() == [0, 0, 0, 0]  # one sure prompt outweighs two unsure ones


def test_prompts_are_asked_by_success_or_by_chance():
    chances, success = np.array([[0.1, 0.5, 0.3], [0.9, 0.5, 0.3]]), np.array([0.2, 0.1, 0.3])
    assert order_of(chances, success, "success").tolist() == [[2, 0, 1], [2, 0, 1]]
    assert order_of(chances, success, "chance").tolist() == [[1, 2, 0], [0, 1, 2]]


def test_a_free_call_is_always_made_and_a_dear_one_never():
    episodes = world(0)
    assert calls_of(learn(episodes, price=2.0), episodes).max() == 1
    free = replay(learn(episodes, price=0.0), episodes)
    assert free[0].mean() > episodes.right[:, 0].mean() + 0.03
    assert free[1].mean() > 2


def test_calls_go_where_they_help_and_the_budget_is_kept():
    training, test = world(0), world(1)
    policy, price = learn_within(2.0, training)
    right, cost = replay(policy, test)
    assert price > 0
    assert abs(cost.mean() - 2.0) < 0.15
    assert right.mean() > mixture(test, float(cost.mean()))[0].mean() + 0.01  # as many calls for everybody


def test_the_estimate_from_part_of_a_log_agrees_with_the_replay_of_all_of_it():
    training, test = world(0), world(1)
    policy, price = learn_within(2.5, training)
    right, cost = replay(policy, test)
    paid = (right - price * (cost - 1)).mean()
    estimates = [off_policy_value(policy, price, test, seed) for seed in range(40)]
    values, errors = np.array(estimates).T
    assert abs(values.mean() - paid) < 4 * values.std() / np.sqrt(40)
    assert values.std() < 2 * errors.mean()  # errors are of the queries too


def test_ridge_leaves_the_constant_free():
    features = np.stack([np.ones(50), np.linspace(0, 1, 50)], axis=1)
    weights = ridge(features, np.full(50, 7.0))
    assert weights == pytest.approx([7.0, 0.0])


def test_between_two_numbers_of_calls_a_share_of_the_queries_gets_one_more():
    episodes = play(ANSWERS, RIGHT, np.ones((2, 4)), np.ones((2, 4)), np.tile(np.arange(4), (2, 1)))
    right, cost = mixture(episodes, 2.25)
    assert cost.tolist() == [2.25, 2.25]
    assert right.tolist() == [0.25, 1.0]
    assert mixture(episodes, 99.0)[1].tolist() == [4.0, 4.0]


def test_a_prompt_without_training_calls_is_scored_by_its_success_and_the_ease_of_the_query():
    chances = np.array([[0.5], [0.8]])
    found = chances_of(chances, np.array([0, -1]), np.array([0.5, 0.6]), usual=0.0)
    assert found[:, 0].tolist() == [0.5, 0.8]
    assert found[0, 1] == pytest.approx(0.6)
    assert found[1, 1] == pytest.approx(0.8571, abs=1e-4)  # odds 1.5 · 4


def answered(number: int, **more):
    rows = rows_of(number, prompts=PROMPTS)
    chance = np.random.default_rng(0)
    return [row | {"completion": f"So it is {7 if row['correct'] else chance.integers(10, 99)}."} | more for row in rows]


def test_equal_answers_have_equal_numbers_and_the_first_call_counts():
    rows = answered(2)
    said = ["it is 7", "The answer: 7.0!", "no idea", "8", " No  idea", "no idea"]
    rows = [row | {"completion": text} for row, text in zip(rows, said, strict=True)]
    replies = Replies.of([*rows, rows[0] | {"completion": "99"}], count)
    assert replies.answers.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert replies.prompts == list(PROMPTS)
    assert replies.tokens[0, 0] == len(rows[0]["query"].split()) + 1 + 3


def test_a_log_without_completions_is_refused():
    with pytest.raises(InputError, match="name the column of the model's answers as `completion`"):
        Replies.of(rows_of(3), count)
    [row, *others] = answered(4)
    with pytest.raises(InputError, match="only one prompt has completions"):
        Frontier([row, *(each | {"completion": None} for each in others)], None, "kernel", 0, count)


def test_the_frontier_of_a_log_is_above_the_best_prompt(monkeypatch):
    """And all that a fold knows comes from the other four."""
    monkeypatch.setattr(frontiers, "BUDGETS", (2.0,))
    frontier = Frontier(answered(160), None, "kernel", 0, count)
    by_fold = [frontier.of_fold(fold) for fold in range(FOLDS)]
    keys = [{frontier.keys[row["query"]] for row in rows} for rows in by_fold]
    assert not keys[0] & set().union(*keys[1:])
    table = frontier_rows([row for rows in by_fold for row in rows], 0)
    assert all(row["queries"] == 160 for row in table)
    assert all(set(row) == set(table[0]) for row in table)  # one table for all ways
    assert len({frozenset(row) for rows in by_fold for row in rows}) == 1
    at = {(row["way"], row["unit"], row["budget"]): row for row in table}
    best, policy = at["best prompt", "calls", None], at["policy", "calls", 2.0]
    assert best["gain"] == best["gain_low"] == 0
    assert policy["success"] - best["success"] == pytest.approx(policy["gain"])
    assert policy["gain_low"] > 0
    assert policy["cost"] < 2.3
    assert at["every prompt", "calls", None]["cost"] == 3
    assert at["policy", "tokens", 2.0]["cost"] > 10
    assert abs(policy["value"] - policy["estimate"]) < 4 * policy["estimate_error"]
