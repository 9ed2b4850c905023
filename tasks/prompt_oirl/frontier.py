"""What a budget buys, on every answered query of a log by five folds (tasks/prompt_oirl/budget.py is what is judged).

Near-repeats of a question share a fold. All that a fold's policy knows comes from the other four: r̂, the order, the price, the
best prompt. It is learned on chances of queries that their r̂ has not seen: two halves of the other four folds score each other.

ways, by budget
  policy          learned, for this mean cost on the training queries
  fixed order     majority of the first prompts by success on the training queries; between two numbers of calls a share of the
                  queries gets one more, so that it costs the same as the policy
  every prompt    majority of all; no budget
  best prompt     one call; no budget
Self-consistency of the best prompt is not among them where the log has one answer per query and prompt: it cannot be replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.statistics import paired_bootstrap
from tasks.data.prompt_log import prompt_ids, related
from tasks.prompt_oirl.answers import Answers, Array, Rows, folds
from tasks.prompt_oirl.budget import (
    ORDERS,
    Episodes,
    chances_of,
    learn_best,
    off_policy_value,
    order_of,
    play,
    replay,
)  # fmt: skip
from tasks.prompt_oirl.encoders import HiddenStates
from tasks.prompt_oirl.replies import Count, Replies
from tasks.prompt_oirl.selector import crossed, fit, logit

FOLDS = 5
BUDGETS = (1.2, 1.5, 2.0, 2.5, 3.0, 3.2, 4.0)  # mean calls for a query, or the tokens of so many
UNITS = ("calls", "tokens")
BOOTSTRAP_SAMPLES = 2000
OF_POLICY = ("price", "estimate", "estimate_error", "first_cost")  # None for the other ways
COMPARED = ("against_fixed", "against_fixed_low", "against_fixed_high", "value", "estimate", "estimate_error")


@dataclass(frozen=True)
class FoldData:
    """Some answered queries, and what a fold knows of them."""

    replies: Replies
    chances: Array  # (queries, prompts)
    costs: dict[str, Array]  # by unit, (queries, prompts)

    def episodes(self, order: Rows, unit: str) -> Episodes:
        return play(self.replies.answers, self.replies.right, self.chances, self.costs[unit], order)


class Frontier:
    """Five folds over all questions of the log; those with an answer under every prompt that has answers are judged."""

    def __init__(self, rows: Sequence[Row], model: HiddenStates | None, learner: str, seed: int, count: Count):
        """count: tokens of each text."""
        self.model, self.learner, self.seed = model, learner, seed
        trained, _ = prompt_ids(rows)
        self.answers, self.replies = Answers.of(rows).under(trained), Replies.of(rows, count)
        if len(self.replies.prompts) < 2:
            raise InputError("the prompt log: only one prompt has completions, so there is nothing to vote on; bring another")
        every = list(dict.fromkeys([*self.answers.queries, *self.replies.queries]))
        found = dict(zip(every, zip(folds(keys := related(every), FOLDS, seed), keys, strict=True), strict=True))
        self.fold, self.reply_fold = (
            np.array([found[query][0] for query in queries]) for queries in (self.answers.queries, self.replies.queries)
        )
        self.keys = {query: key for query, (_, key) in found.items()}
        self.known = np.array([trained.index(id) if id in trained else -1 for id in self.replies.prompts])

    def of_fold(self, number: int) -> list[Row]:
        """One row per query of the fold, way, unit and budget: {query, way, unit, budget, right, cost, ...}."""
        training, test = self.training_and_test(number)
        success = self.success(number)
        best = int(success.argmax())
        rows = self._rows(test, "best prompt", "calls", None, test.replies.right[:, best], np.ones(len(test.replies.queries)))
        fixed = order_of(test.chances, success, "success")
        for unit in UNITS:
            known = {order: training.episodes(order_of(training.chances, success, order), unit) for order in ORDERS}
            usual = training.costs[unit][:, best].mean()
            for budget in BUDGETS:
                policy, price = learn_best(budget * usual, known)
                episodes = test.episodes(order_of(test.chances, success, policy.order), unit)
                right, cost = replay(policy, episodes)
                seed = seeds.derive(self.seed, "stopped", number)
                estimate, error = off_policy_value(policy, price, episodes, seed)
                more = {"price": price, "estimate": estimate, "estimate_error": error, "first_cost": episodes.costs[:, 0]}
                rows += self._rows(test, "policy", unit, budget, right, cost, more)
                plain = play(test.replies.answers, test.replies.right, np.ones_like(test.chances), test.costs[unit], fixed)
                rows += self._rows(test, "fixed order", unit, budget, *mixture(plain, float(cost.mean())))
            whole = np.argsort(-success)[None].repeat(len(fixed), axis=0)
            plain = play(test.replies.answers, test.replies.right, np.ones_like(test.chances), test.costs[unit], whole)
            rows += self._rows(test, "every prompt", unit, None, plain.right[:, -1], plain.costs.sum(axis=1))
        return rows

    def success(self, number: int) -> Array:
        """Of each prompt on the other folds: by all calls of the log where r̂ knows it, else by those with answers."""
        replied = self.replies.right[self.reply_fold != number].mean(axis=0)
        logged = self.answers.of_rows(np.flatnonzero(self.fold != number)).success
        return np.where(self.known >= 0, logged[self.known], replied)

    def training_and_test(self, number: int) -> tuple[FoldData, FoldData]:
        """(the answered queries of the other folds, those of this one)"""
        others = np.flatnonzero(self.fold != number)
        keys = [self.keys[self.answers.queries[row]] for row in others]
        queries = self.replies.queries
        learned = np.flatnonzero(self.reply_fold != number)
        asked = [queries[row] for row in learned]
        chances = crossed(self.answers.of_rows(others), keys, asked, self.model, self.learner, self.seed, "half", number)
        success, usual = self.success(number), float(logit(chances).mean())
        selector = fit(self.answers.of_rows(others), self.model, self.learner, seeds.derive(self.seed, "fit", number))
        judged = np.flatnonzero(self.reply_fold == number)
        fresh = selector.probabilities([queries[row] for row in judged])
        return self._fold_data(learned, chances, success, usual), self._fold_data(judged, fresh, success, usual)

    def _fold_data(self, rows: Rows, chances: Array, success: Array, usual: float) -> FoldData:
        replies = self.replies.of_rows(rows)
        costs = {"calls": np.ones_like(replies.tokens), "tokens": replies.tokens}
        return FoldData(replies, chances_of(chances, self.known, success, usual), costs)

    def _rows(
        self, data: FoldData, way: str, unit: str, budget: float | None, right: Array, cost: Array, more: Row | None = None
    ) -> list[Row]:
        found: Row = {"query": data.replies.queries, "right": right, "cost": cost} | (more or dict.fromkeys(OF_POLICY))
        columns = {name: np.broadcast_to(values, len(right)).tolist() for name, values in found.items()}
        return [
            {"way": way, "unit": unit, "budget": budget} | dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]


def mixture(episodes: Episodes, cost: float) -> tuple[Array, Array]:
    """(right, cost) of each query when a share of the queries stops one call earlier than the rest, at this mean cost."""
    sums = episodes.costs.cumsum(axis=1)
    means = sums.mean(axis=0)
    upper = min(int(np.searchsorted(means, cost)), len(means) - 1)
    lower = max(upper - 1, 0)
    share = 0.0 if upper == lower else float(np.clip((cost - means[lower]) / (means[upper] - means[lower]), 0, 1))
    right, costs = ((1 - share) * table[:, lower] + share * table[:, upper] for table in (episodes.right, sums))
    return right, costs


def frontier_rows(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row per way, unit and budget: success, cost, and the gains of the policy with their 95 % intervals over queries.

    gain: over the best prompt at one call; against_fixed: of the policy over the fixed order at the same cost. value, estimate:
    what the policy is paid, by replay and off-policy, with the standard error of the estimate.
    """
    by: dict[tuple[str, str, float | None], list[Row]] = {}
    for row in rows:
        by.setdefault((row["way"], row["unit"], row["budget"]), []).append(row)
    base = {row["query"]: row["right"] for row in by["best prompt", "calls", None]}
    table = []
    for (way, unit, budget), found in by.items():
        right = [row["right"] for row in found]
        result: Row = dict.fromkeys(COMPARED) | {"way": way, "unit": unit, "budget": budget, "queries": len(found)}
        result |= {"success": float(np.mean(right)), "cost": float(np.mean([row["cost"] for row in found]))}
        result |= interval("gain", [row["right"] - base[row["query"]] for row in found], seed)
        if way == "policy":
            fixed = {row["query"]: row["right"] for row in by["fixed order", unit, budget]}
            result |= interval("against_fixed", [row["right"] - fixed[row["query"]] for row in found], seed)
            paid = [row["right"] - row["price"] * (row["cost"] - row["first_cost"]) for row in found]
            errors = [row["estimate_error"] ** 2 for row in found]
            result |= {"value": float(np.mean(paid)), "estimate": float(np.mean([row["estimate"] for row in found]))}
            result["estimate_error"] = float(np.sqrt(np.mean(errors) / FOLDS))
        table.append(result)
    return table


def interval(name: str, differences: Sequence[float], seed: int) -> Row:
    mean, low, high = paired_bootstrap(differences, BOOTSTRAP_SAMPLES, seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
