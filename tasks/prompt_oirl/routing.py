"""Routing between models by r̂: each candidate is a prompt of a model, and a call of it has a cost.

curve   cost and quality of taking the candidate with the largest r̂ - price · mean cost, for a hundred prices; what is paid is
        the cost of the very call
area    under the upper hull of the curve, quality never falling with cost, from the cheapest candidate to the dearest: mean
        quality over costs (AIQ of RouterBench, Hu et al. 2024, arXiv 2403.12031)

Between the cheapest candidate, the weak one, and the best, the strong one, as in RouteLLM (Ong et al. 2024, arXiv 2406.18665):
the queries where r̂ promises most of the strong one go there.

pgr     performance gap recovered, (quality - weak) / (strong - weak), for each share of strong calls, from none to all
apgr    its mean over the shares, by the trapezoid rule over all of them; the paper takes ten. 0.5 is routing at random
cpt50, cpt80   call-performance threshold: the least share of strong calls that recovers so many per cent of the gap
"""

from collections.abc import Sequence

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.prompt_oirl.answers import Answers, Array, Rows

PRICES = 100  # of the curve
SAMPLES = 500  # of the bootstrap over queries


def costs_of(log: Sequence[Row], answers: Answers) -> Array:
    """Mean cost of the calls of each pair, (queries, candidates)."""
    place, column = ({text: i for i, text in enumerate(names)} for names in (answers.queries, answers.prompts))
    costs = np.zeros((len(place), len(column)))
    for row in log:
        if row["cost"] is None:
            raise InputError(
                f"the prompt log: query {row['query_id']} under prompt {row['prompt_id']} has no `cost`, which routing needs; "
                "add the column, or leave `routing` out of prompt_oirl_study.experiments"
            )
        if row["correct"] is not None and row["query"] in place and row["prompt_id"] in column:
            costs[place[row["query"]], column[row["prompt_id"]]] += row["cost"]
    return costs / answers.calls


def routed(chances: Array, rates: Array, costs: Array) -> tuple[Array, Array]:
    """(cost, quality) of each query at each price, (prices, queries). chances, rates, costs: (queries, candidates)."""
    usual = costs.mean(axis=0)
    scale = (chances.max() - chances.min()) / max(usual.max() - usual.min(), 1e-12)
    prices = np.concatenate([[0.0], scale * np.geomspace(1e-3, 1e3, PRICES)])
    by_cost, every = np.argsort(usual, kind="stable"), np.arange(len(rates))  # of a tie the cheapest
    choice = by_cost[np.array([(chances - price * usual)[:, by_cost].argmax(axis=1) for price in prices])]
    return costs[every, choice], rates[every, choice]


def curve(paid: Array, got: Array) -> Array:
    """(cost, quality) of each price, in the mean: (prices, 2), from cheap to dear."""
    return np.unique(np.stack([paid.mean(axis=1), got.mean(axis=1)], axis=1), axis=0)


def area(points: Array, single: Array) -> float:
    """points, single: (…, 2) as (cost, quality), of the router and of each candidate. The cheapest may always be taken."""
    low, high = single[:, 0].min(), single[:, 0].max()
    cheapest = single[single[:, 0] == low].max(axis=0)
    reached = np.concatenate([[cheapest], points[np.argsort(points[:, 0])]])
    best = np.maximum.accumulate(reached[:, 1])
    hull: list[tuple[float, float]] = []
    for cost, quality in [*zip(reached[:, 0], best, strict=True), (high, best[-1])]:
        while hull and hull[-1][0] >= cost - 1e-12 and hull[-1][1] <= quality:
            hull.pop()
        while len(hull) > 1 and cross(hull[-2], hull[-1], (cost, quality)) >= 0:
            hull.pop()
        hull.append((cost, quality))
    costs, qualities = np.array(hull).T
    return float(np.trapezoid(qualities, costs) / (high - low)) if high > low else float(best[-1])


def cross(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> float:
    """At least 0 where `middle` is not above the line from first to last."""
    return (middle[0] - first[0]) * (last[1] - first[1]) - (middle[1] - first[1]) * (last[0] - first[0])


def ends(costs: Array, rates: Array) -> tuple[int, int]:
    """(weak, strong): the best of the cheapest candidates, and of all."""
    usual, success = costs.mean(axis=0), rates.mean(axis=0)
    return int(np.where(usual == usual.min(), success, -1).argmax()), int(success.argmax())


def pgr(chances: Array, rates: Array, weak: int, strong: int) -> Array:
    """After 0, 1, … strong calls: (queries + 1,). Not a number where the two are equally good."""
    order = np.argsort(chances[:, weak] - chances[:, strong], kind="stable")
    gained = np.concatenate([[0.0], (rates[:, strong] - rates[:, weak])[order].cumsum()])
    return np.asarray(gained / gained[-1] if gained[-1] else np.full(len(gained), np.nan))


def apgr(recovered: Array) -> float:
    """recovered: of `pgr`."""
    return float(np.trapezoid(recovered, dx=1 / (len(recovered) - 1)))


def cpt(recovered: Array, share: float) -> float:
    return float(np.argmax(recovered >= share) / (len(recovered) - 1)) if recovered[-1] == 1 else float("nan")


def routing_figures(chances: Array, rates: Array, costs: Array, seed: int) -> dict[str, float]:
    """With 95 % intervals over queries; those of RouteLLM are absent where the cheapest candidate is the best."""
    drawn = np.random.default_rng(seed).integers(0, len(rates), (SAMPLES, len(rates)))
    paid, got = routed(chances, rates, costs)
    weak, strong = ends(costs, rates)

    def of(rows: Rows) -> list[float]:
        single = np.stack([costs[rows].mean(axis=0), rates[rows].mean(axis=0)], axis=1)
        found = area(curve(paid[:, rows], got[:, rows]), single)
        recovered = pgr(chances[rows], rates[rows], weak, strong)
        return [found, apgr(recovered), cpt(recovered, 0.5), cpt(recovered, 0.8)]

    whole, many = of(np.arange(len(rates))), np.array([of(rows) for rows in drawn])
    result: dict[str, float] = {}
    for place, name in enumerate(("area", "apgr", "cpt50", "cpt80")):
        if not np.isnan(whole[place]):
            low, high = np.nanquantile(many[:, place], [0.025, 0.975])
            result |= {name: whole[place], f"{name}_low": float(low), f"{name}_high": float(high)}
    return result
