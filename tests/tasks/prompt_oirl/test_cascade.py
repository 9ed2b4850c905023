"""A budget at request time: the served rule asks, stops and answers as the replay of the log does."""

import json

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.core.serving import save_served
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.budget import calls_of, order_of, play, replay
from tasks.prompt_oirl.cascade import Cascade, default_params
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.replies import Replies
from tasks.prompt_oirl.selector import Selector, fit
from tasks.prompt_oirl.served import load
from tests.processes import REPO
from tests.tasks.prompt_oirl.test_budget import PROMPTS, answered, count

LOG, NEW = 160, 8
ROWS = answered(LOG + NEW)
TRAINING, FRESH = ROWS[: LOG * len(PROMPTS)], ROWS[LOG * len(PROMPTS) :]
SUM = "Dan has 7 apples and 162 pears. How many are there in total?"
SHARES = "Dan has 7 apples and 161 pears. How many does each get?"


def fitted(path, rows):
    path.mkdir()
    answers = Answers.of(rows)
    selector = fit(answers, None, "kernel", seed=0)
    selector.save(path)
    Reference.of(selector.features(answers.queries), answers, seed=0).save(path / "reference.npz")
    return path, Cascade.of(rows, answers, None, "kernel", seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, cascade = fitted(tmp_path_factory.mktemp("cascade") / "model", TRAINING)
    cascade.save(path / "cascade.npz")
    return path


def test_it_asks_stops_and_answers_as_the_replay(folder):
    served, replies = load(folder), Replies.of(FRESH, count)
    calls, right = [], []
    for query in replies.queries:
        rows = {row["prompt_id"]: row for row in FRESH if row["query"] == query}
        completions = []
        while not (told := served([{"query": query}], {"budget": 2, "completions": completions or [""]})[0])["answer"]:
            completions.append(rows[told["prompt_id"]]["completion"])
        calls.append(len(completions))
        right.append(float(rows[told["prompt_id"]]["correct"]))
        assert told["answer"] == rows[told["prompt_id"]]["completion"]
    cascade, selector = Cascade.load(folder / "cascade.npz"), Selector.load(folder)
    success = np.array(list(Reference.load(folder / "reference.npz").success.values()))
    policy = cascade.learn(2, list(PROMPTS), success, 0.0)
    chances = selector.probabilities(replies.queries)
    order = order_of(chances, success, policy.order)
    episodes = play(replies.answers, replies.right, chances, np.ones_like(chances), order)
    assert calls == calls_of(policy, episodes).tolist()
    assert right == replay(policy, episodes)[0].tolist()
    assert 1 < np.mean(calls) < len(PROMPTS)


def test_the_best_prompt_is_asked_first_unless_another_promises_the_margin(folder):
    success = Reference.load(folder / "reference.npz").success
    best = max(success, key=success.get)
    rows = [{"query": SUM if best == "steps" else SHARES}]
    free, held = (load(folder)(rows, {"budget": 1.2, "margin": margin})[0] for margin in (0.0, 1.0))
    assert free["prompt_id"] != best
    assert held["prompt_id"] == best
    assert free["answer"] == held["answer"] == ""


def test_of_one_candidate_one_answer_is_all(folder):
    asked, told = (
        load(folder)([{"query": SUM}], {"budget": 2, "candidates": ["steps"], "completions": completions})[0]
        for completions in ([""], ["It is 7."])
    )
    assert (asked["prompt_id"], asked["answer"]) == ("steps", "")
    assert (told["prompt_id"], told["answer"]) == ("steps", "It is 7.")


def test_one_call_is_the_choice_and_many_queries_get_their_first_prompt(folder):
    rows = [{"query": SHARES}, {"query": FRESH[0]["query"]}]
    assert load(folder)(rows, {"budget": 1}) == load(folder)(rows, {})
    assert [row["answer"] for row in load(folder)(rows, {"budget": 2})] == ["", ""]


@pytest.mark.parametrize(("number", "params", "says"), [
    (1, {"budget": 0.5}, "`budget` is 0.5; it is a mean number of calls for a query, at least 1"),
    (1, {"budget": float("nan")}, "`budget` is nan"),
    (1, {"budget": 2, "completions": ["7", " "]}, "`completions` has a blank text"),
    (1, {"budget": 2, "completions": ["7"] * 4}, "`completions` has 4 texts, and only 3 prompts are asked"),
    (2, {"budget": 2, "completions": ["7"]}, "`completions` belong to one query, and there are 2"),
    (1, {"budget": 2, "candidates": ["stps"]}, "prompt 'stps' is not known; did you mean `steps`?"),
])  # fmt: skip
def test_what_cannot_be_asked_is_one_sentence(folder, number, params, says):
    with pytest.raises(InputError) as error:
        load(folder)([{"query": SHARES}] * number, params)
    assert str(error.value).startswith(says)


def test_a_log_without_completions_serves_no_budget(tmp_path):
    path, cascade = fitted(tmp_path / "model", [row | {"completion": None} for row in TRAINING])
    assert cascade is None
    of_one_prompt = [row for row in TRAINING if row["prompt_id"] == "steps"]
    assert all(Cascade.of(rows, Answers.of(rows), None, "kernel", seed=0) is None for rows in (TRAINING[:99], of_one_prompt))
    with pytest.raises(InputError, match="`budget`: the log of this model has too few completions to learn from"):
        load(path)([{"query": SHARES}], {"budget": 2})


def test_mlflow_serves_it(folder, tmp_path):
    """As MLflow's server reads a request, without the HTTP."""
    import mlflow
    from mlflow.pyfunc.scoring_server import invocations

    rows, params = [{"query": SHARES}], default_params(PROMPTS)
    example = (rows, params, load(folder)(rows, params))
    save_served(tmp_path / "model", REPO / "tasks/prompt_oirl/served.py", folder, example, ["mlflow"])
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))

    def post(**params):
        body = json.dumps({"inputs": rows, "params": params})
        return json.loads(invocations(body, "application/json", model, model.metadata.get_input_schema()).response)

    for params in ({}, {"budget": 2}, {"budget": 3, "completions": ["It is 7.", "It is 8."]}, {"completions": ["It is 7."]}):
        assert post(**params)["predictions"] == load(folder)(rows, params)
