"""Routing between models by r̂: each candidate is a prompt of a model, and a call of it has a cost.

curve   cost and quality of taking the candidate with the largest r̂ - price · cost, for a hundred prices
area    under the upper hull of the curve, quality never falling with cost, from the cheapest candidate to the dearest: mean
        quality over costs (AIQ of RouterBench, Hu et al. 2024, arXiv 2403.12031)
apgr    between the cheapest candidate and the best: the queries where r̂ promises most of the best go there, from none to all;
        the mean over shares of how much of the gap is recovered, by the trapezoid rule (RouteLLM, Ong et al. 2024, arXiv
        2406.18665). 0.5 is routing at random
"""

from collections.abc import Sequence

import numpy as np

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.prompt_oirl.answers import Array, Rows

PRICES = 100  # of the curve
SAMPLES = 500  # of the bootstrap over queries


def costs_of(log: Sequence[Row], prompt_ids: Sequence[str]) -> Array:
    """Mean cost of a call of each: (prompts,)."""
    costs: dict[str, list[float]] = {prompt_id: [] for prompt_id in prompt_ids}
    for row in log:
        if row["cost"] is None:
            raise InputError(
                f"the prompt log: query {row['query_id']} under prompt {row['prompt_id']} has no `cost`, which routing needs; "
                "add the column, or leave `routing` out of prompt_oirl_study.experiments"
            )
        if row["prompt_id"] in costs:
            costs[row["prompt_id"]].append(row["cost"])
    return np.array([np.mean(each) for each in costs.values()])


def routed(chances: Array, rates: Array, costs: Array) -> tuple[Array, Array]:
    """(cost, quality) of each query at each price, (prices, queries). chances, rates: (queries, candidates)."""
    scale = (chances.max() - chances.min()) / max(costs.max() - costs.min(), 1e-12)
    prices = np.concatenate([[0.0], scale * np.geomspace(1e-3, 1e3, PRICES)])
    by_cost = np.argsort(costs, kind="stable")  # of a tie the cheapest
    choice = by_cost[np.array([(chances - price * costs)[:, by_cost].argmax(axis=1) for price in prices])]
    return costs[choice], rates[np.arange(len(rates)), choice]


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


def apgr(chances: Array, rates: Array, weak: int, strong: int) -> float:
    """Not a number where the two are equally good."""
    order = np.argsort(chances[:, weak] - chances[:, strong], kind="stable")
    gained = np.concatenate([[0.0], (rates[:, strong] - rates[:, weak])[order].cumsum()])
    return float(np.trapezoid(gained, dx=1 / len(order)) / gained[-1]) if gained[-1] else float("nan")


def routing_figures(chances: Array, rates: Array, costs: Array, seed: int) -> dict[str, float]:
    """area and apgr with their 95 % intervals over queries; apgr is absent where the cheapest candidate is the best."""
    drawn = np.random.default_rng(seed).integers(0, len(rates), (SAMPLES, len(rates)))
    paid, got = routed(chances, rates, costs)
    success = rates.mean(axis=0)
    weak, strong = int(np.where(costs == costs.min(), success, -1).argmax()), int(success.argmax())

    def of(rows: Rows) -> tuple[float, float]:
        single = np.stack([costs, rates[rows].mean(axis=0)], axis=1)
        found = area(curve(paid[:, rows], got[:, rows]), single)
        return found, apgr(chances[rows], rates[rows], weak, strong) if weak != strong else float("nan")

    whole, many = of(np.arange(len(rates))), np.array([of(rows) for rows in drawn])
    result: dict[str, float] = {}
    for place, name in enumerate(("area", "apgr")):
        if not np.isnan(whole[place]):
            low, high = np.nanquantile(many[:, place], [0.025, 0.975])
            result |= {name: whole[place], f"{name}_low": float(low), f"{name}_high": float(high)}
    return result
