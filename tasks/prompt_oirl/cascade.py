"""A budget at request time: which prompt to ask next, or which answer to give, by the policy of tasks/prompt_oirl/budget.py.

Kept of the log, for its training queries: which prompts gave the same answer, which were right, and the chances by an r̂ that
had not seen the query. Budget, margin and candidates come with a request, so the policy is learned anew for each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.prompt_log import related
from tasks.prompt_oirl.answers import Answers, Array, Rows
from tasks.prompt_oirl.budget import ORDERS, Policy, calls_of, learn_best, order_of, play
from tasks.prompt_oirl.choose import Choosing, choose, row_of
from tasks.prompt_oirl.encoders import HiddenStates
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.replies import Replies, codes
from tasks.prompt_oirl.selector import crossed

ENOUGH = 100  # training queries with a completion under every prompt that has any
NONE = [""]  # completions; MLflow takes the type of a param from its default


@dataclass(frozen=True)
class Cascade:
    """answers, right, chances: (training queries, prompts)."""

    prompts: Array  # ids
    answers: Rows
    right: Array
    chances: Array

    @classmethod
    def of(cls, rows: Sequence[Row], answers: Answers, model: HiddenStates | None, learner: str, seed: int) -> "Cascade | None":
        """Of the training rows of a log, and their table; None where it has too few completions to learn from."""
        try:
            replies = Replies.of([row for row in rows if row["prompt_id"] in answers.prompts], lambda texts: [0] * len(texts))
        except InputError:
            return None
        if len(replies.queries) < ENOUGH or len(replies.prompts) < 2:
            return None
        keys = related(answers.queries)
        chances = crossed(answers, keys, replies.queries, model, learner, seed, "cascade")
        columns = [list(answers.prompts).index(prompt_id) for prompt_id in replies.prompts]
        return cls(np.array(replies.prompts), replies.answers, replies.right, chances[:, columns])

    def learn(self, budget: float, ids: Sequence[str], success: Array, margin: float) -> Policy:
        """Over these prompts, for so many calls on average. success: of each on the training queries."""
        columns = [self.prompts.tolist().index(prompt_id) for prompt_id in ids]
        answers, right, chances = self.answers[:, columns], self.right[:, columns], self.chances[:, columns]
        orders = {order: order_of(chances, success, order, margin) for order in ORDERS}
        by_order = {order: play(answers, right, chances, np.ones_like(right), rows) for order, rows in orders.items()}
        return learn_best(budget, by_order)[0]

    def save(self, file: Path) -> None:
        np.savez(file, **asdict(self))

    @classmethod
    def load(cls, file: Path) -> "Cascade":
        with np.load(file, allow_pickle=False) as kept:
            return cls(**kept)


def default_params(prompts: Iterable[str]) -> dict[str, Any]:
    """Of a request. prompts: ids."""
    return {"candidates": list(prompts), "margin": 0.0, "budget": 1.0, "completions": NONE}


def next_call(
    cascade: Cascade,
    selector: Choosing,
    reference: Reference,
    query: str,
    completions: Sequence[str],
    budget: float,
    candidates: Sequence[str],
    margin: float,
) -> Row:
    """The row of `choose` for the prompt to ask next, with an empty `answer`; or for the prompt whose answer wins, with that.

    completions: what the model has said so far, in the order asked. budget: calls, on average over queries like those of the
    log. Candidates without completions in the log are not asked.
    """
    if not 1 <= budget < float("inf"):
        raise InputError(f"`budget` is {budget}; it is a mean number of calls for a query, at least 1")
    if not all(text.strip() for text in completions):
        raise InputError("`completions` has a blank text; send what the model said, in the order asked")
    [row] = choose(selector, reference, [query], candidates, margin)
    known = {each["prompt_id"]: each["probability"] for each in (row, *row["alternatives"])}
    found = {prompt_id: known[prompt_id] for prompt_id in cascade.prompts.tolist() if prompt_id in known}
    if not found:
        raise InputError(f"`budget`: no candidate has completions in the log; name some of {', '.join(cascade.prompts)}")
    chances, success = np.array([list(found.values())]), np.array([reference.success[prompt_id] for prompt_id in found])
    policy = cascade.learn(budget, list(found), success, margin)
    order, number = order_of(chances, success, policy.order, margin), len(completions)
    if number > order.shape[1]:
        raise InputError(f"`completions` has {number} texts, and only {order.shape[1]} prompts are asked")
    said = np.full(chances.shape, -1)  # what comes after the last completion has no part in what is decided here
    said[0, order[0, :number]] = codes([{"completion": text} for text in completions])
    episode = play(said, np.zeros_like(chances), chances, np.ones_like(chances), order)
    place, answer = number, ""
    if calls_of(policy, episode)[0] <= number:
        place = int(episode.leaders[0, number - 1])
        answer = completions[place]
    return row | row_of(found, selector.prompts, list(found)[order[0, place]]) | {"answer": answer}
