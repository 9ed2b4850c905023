"""r̂ on fixed features: figures by hand, learners that learn, files that bring back the same, folds that do not leak."""

import random

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.prompt_oirl.answers import Answers, folds
from tasks.prompt_oirl.encoders import Encoder
from tasks.prompt_oirl.figures import figures, weighted_bootstrap
from tasks.prompt_oirl.selector import Fitting, Selector, fit, platt, similarity
from tasks.prompt_oirl.surface import last_sentence, mask_numbers, surface

PROMPTS = {"plain": "The answer is:", "steps": "Let's think step by step:"}
LEARNERS = ["kernel", "mlp", "mean", "trees"]


def rows_of(number, seed=0, split="train", prompts=PROMPTS):
    """`plain` answers what asks for a sum, `steps` what asks for a share; each fails in one of ten."""
    chance = random.Random(seed)
    rows = []
    for index in range(number):
        shares, count = index % 2, chance.randint(2, 99)
        ask = "How many does each get?" if shares else "How many are there in total?"
        query = f"{chance.choice(['Ann', 'Bob', 'Cleo'])} has {count} apples and {index} pears. {ask}"
        for prompt_id, prompt in prompts.items():
            right = (prompt_id == "steps") == bool(shares)
            correct = right != (chance.random() < 0.1)
            row = {"query_id": f"{split}{index}", "prompt_id": prompt_id, "query": query, "prompt": prompt}
            rows.append(row | {"completion": None, "correct": correct, "split": split})
    return rows


@pytest.fixture(scope="module")
def answers():
    return Answers.of(rows_of(240))


@pytest.fixture(scope="module")
def fitted(answers):
    return {learner: fit(answers, None, learner, seed=0) for learner in LEARNERS}


def test_a_repeated_query_is_one_row_of_rates():
    rows = rows_of(1) * 2 + rows_of(1)
    rows[0] = rows[0] | {"correct": None, "query_id": "another id"}
    table = Answers.of(rows)
    assert table.calls.tolist() == [[2.0, 3.0]]
    assert table.rates[0, 1] == float(rows[1]["correct"])


def test_queries_without_a_prompt_are_left_out():
    rows = rows_of(3)[:-1]
    assert len(Answers.of(rows).under(["plain"])) == 3
    assert len(Answers.of(rows).under(["plain", "steps"])) == 2
    with pytest.raises(InputError, match="no query was asked under all of plain, steps"):
        Answers.of(rows[:1] + rows[3:4]).under(["plain", "steps"])


def test_figures_by_hand():
    """The first query counts twice. Chosen: steps (1/2 right), plain (1/1); always plain: 2/2 and 1/1."""
    table = Answers(["a", "b"], PROMPTS, np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([[2.0, 2.0], [1.0, 1.0]]))
    chances = np.array([[0.4, 0.8], [0.6, 0.3]])
    found = figures(chances, table, np.array([0, 0]), seed=0)
    assert found["success"] == pytest.approx((0.5 * 2 + 1) / 3)
    assert found["best_prompt_success"] == 1.0
    assert found["gain"] == pytest.approx(-1 / 3)
    assert found["gain_low"] <= found["gain"] <= found["gain_high"]
    assert found["random_success"] == pytest.approx((3 / 3 + 1 / 3) / 2)
    assert found["oracle_success"] == 1.0
    assert found["accuracy"] == pytest.approx((0 + 1 + 1 + 1) / 6)  # .4 is wrong twice, .8 right once of two
    assert found["precision"] == pytest.approx((1 + 1) / 3)
    logs = 2 * np.log(0.4) + np.log(0.8) + np.log(0.2) + np.log(0.6) + np.log(0.7)
    assert found["log_loss"] == pytest.approx(-logs / 6)
    assert found["auc"] == pytest.approx((2 * 1 + 1.5 + 1) / (4 * 2))  # right: .4 twice, .8, .6; wrong: .8, .3


def test_the_oracle_counts_a_query_as_often_as_it_was_asked():
    """The query that no prompt gets right was asked twice, the other once."""
    table = Answers(["a", "b"], PROMPTS, np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 2.0], [1.0, 1.0]]))
    found = figures(np.full((2, 2), 0.6), table, np.array([0, 0]), seed=0)
    assert found["oracle_success"] == pytest.approx(1 / 3)


def test_the_bootstrap_keeps_the_calls_of_a_question_together():
    assert weighted_bootstrap(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), 0) == (0.5, 0.5)


def test_folds_share_no_text_and_differ_by_one_query_at_most(answers):
    fold = folds(answers.queries, 5, 0)
    assert sorted(np.bincount(fold)) == [48] * 5
    shuffled = [answers.queries[i] for i in np.random.default_rng(0).permutation(len(answers))]
    again = dict(zip(shuffled, folds(shuffled, 5, 0), strict=True))
    assert [again[query] for query in answers.queries] == fold.tolist()
    assert folds(answers.queries, 5, 1).tolist() != fold.tolist()


def test_queries_of_one_key_share_a_fold():
    keys = [str(index // 3) for index in range(30)]
    fold = folds(keys, 5, 0)
    assert sorted(np.bincount(fold)) == [6] * 5
    assert all(len(set(fold[3 * group : 3 * group + 3])) == 1 for group in range(10))


def test_a_subset_fitted_on_shared_work_is_the_fit_of_that_subset():
    answers = Answers.of(rows_of(100, prompts=PROMPTS | {"other": "Think in small steps:"}))
    together, queries = Fitting(answers, None, "kernel", seed=0), [row["query"] for row in rows_of(10, seed=3)]
    for subset in (["steps"], ["plain", "other"]):
        alone = fit(answers.under(subset), None, "kernel", seed=0)
        np.testing.assert_allclose(together.under(subset).probabilities(queries), alone.probabilities(queries), atol=1e-4)


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_finds_what_suits_a_new_query(fitted, learner):
    new = Answers.of(rows_of(100, seed=1, split="test"))
    chances = fitted[learner].probabilities(new.queries)
    assert chances.shape == (100, 2)
    found = figures(chances, new, np.zeros(100, dtype=int), seed=0)
    assert found["success"] > 0.8
    assert found["gain_low"] > 0.2
    assert found["auc"] > 0.85


@pytest.mark.parametrize("learner", LEARNERS)
def test_saved_and_loaded_it_answers_the_same(fitted, learner, tmp_path):
    fitted[learner].save(tmp_path)
    again = Selector.load(tmp_path)
    queries = [row["query"] for row in rows_of(20, seed=2)]
    assert again.prompts == PROMPTS
    assert again.prompt_ids == ["plain", "steps"]
    np.testing.assert_array_equal(again.probabilities(queries), fitted[learner].probabilities(queries))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".npz"}


def test_trees_walked_as_arrays_are_those_of_sklearn(answers, fitted, monkeypatch):
    from sklearn.ensemble import HistGradientBoostingRegressor

    from tasks.prompt_oirl.selector import embed_prompts
    from tasks.prompt_oirl.trees import fit_trees, pairs, predict_trees

    kept = []
    grow = HistGradientBoostingRegressor.fit
    monkeypatch.setattr(HistGradientBoostingRegressor, "fit", lambda self, *a, **k: kept.append(grow(self, *a, **k)))
    queries = Encoder.fit(None, answers.queries).encode(answers.queries)
    prompts = embed_prompts(None, list(PROMPTS.values()))
    state = fit_trees(queries, prompts, answers, seed=0)
    expected = kept[0].predict(pairs(state, queries, prompts)).reshape(len(queries), 2)
    np.testing.assert_allclose(predict_trees(state, queries, prompts), expected, atol=1e-6)


def test_a_new_prompt_is_scored_by_those_it_resembles(fitted):
    queries = [row["query"] for row in rows_of(10, seed=3)]
    like = fitted["mean"].probabilities(queries, {"new": "Let us think step by step."})
    known = fitted["mean"].probabilities(queries)
    assert abs(like[:, 0] - known[:, 1]).mean() < abs(like[:, 0] - known[:, 0]).mean()
    weights = similarity(None, ["a", "b c"], list(PROMPTS.values()))
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_platt_undoes_overconfidence():
    """True logits are half of those announced."""
    chance = np.random.default_rng(0)
    announced = chance.normal(0, 2, (4000, 1))
    right = (chance.random((4000, 1)) < 1 / (1 + np.exp(-announced / 2))).astype(float)
    table = Answers([], {}, right, np.ones_like(right))
    slope, shift = platt(1 / (1 + np.exp(-announced)), table)
    assert slope == pytest.approx(0.5, abs=0.06)
    assert shift == pytest.approx(0, abs=0.1)


def test_surface_of_a_story():
    text = "Ann has 1,200 apples. She eats 0.5 of one. How many are left?"
    features = surface([text])[0]
    assert features[0] == 2  # numbers
    assert features[4] == pytest.approx(np.log1p(1200))
    assert features[7] == 1  # one is a fraction
    assert text[last_sentence(text) :].strip() == "How many are left?"
    assert mask_numbers(text).startswith("ann has # apples")


def test_queries_without_words_are_refused():
    with pytest.raises(InputError, match="share no words"):
        Encoder.fit(None, ["?", "!"])
