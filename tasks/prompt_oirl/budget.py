"""More than one call for a query: in which order the prompts are asked, when to stop, and which answer wins.

The prompts are asked one after another. The leader is the answer with the largest sum of r̂ over the prompts that gave it. After
n calls the policy takes the leader, or pays for one more call: it is paid 1 for a right answer, less `price` times the cost.

    V_n(s) = max( P(leader is right | s),  E[ V_{n+1} - price · cost | s ] )

Both sides are linear in what is known after n calls (`states`), fitted by ridge regression from the last call backwards, on
what following the later rules has really paid (Longstaff & Schwartz 2001). The log is enough for that: it has every prompt's
answer to every query. A price, not a limit, makes calls go where they help; that of a budget is found on the training queries.
"""

from dataclasses import dataclass

import numpy as np

from tasks.prompt_oirl.answers import Array, Rows
from tasks.prompt_oirl.learners import sigmoid
from tasks.prompt_oirl.selector import logit

MOST = 8  # calls for a query
RIDGE = 3.0  # on features of unit variance, against the sum over queries
ROUNDS = 12  # of the search for a price
ORDERS = ("success", "chance")  # the same for all queries, by success on the training queries; or by r̂ of the query
HIGHEST_PRICE = 1.0


@dataclass(frozen=True)
class Episodes:
    """What each query looks like after each number of calls."""

    states: Array  # (queries, calls, features)
    leaders: Rows  # (queries, calls): place in the order of the prompt whose answer leads
    right: Array  # (queries, calls): of the leader
    costs: Array  # (queries, calls): of that call


@dataclass(frozen=True)
class Policy:
    order: str  # of ORDERS
    stop: Array  # (calls, features): chance that the leader is right
    go: Array  # (calls - 1, features): what one more call is worth, its cost taken off


def order_of(chances: Array, success: Array, order: str, margin: float = 0.0) -> Rows:
    """Columns of the prompts to ask, first to last: (queries, at most MOST). margin: what r̂ adds to the best on average."""
    raised = chances + margin * (np.arange(len(success)) == success.argmax())
    by = np.tile(success, (len(chances), 1)) if order == "success" else raised
    return np.argsort(-by, axis=1, kind="stable")[:, :MOST]


def play(answers: Rows, right: Array, chances: Array, costs: Array, order: Rows) -> Episodes:
    """All (queries, prompts) but order. The leader of a tie is the answer that came first."""
    every = np.arange(len(order))
    answers = np.take_along_axis(answers, order, axis=1)
    right, costs, asked = (np.take_along_axis(table, order, axis=1) for table in (right, costs, chances))
    ease = logit(chances).mean(axis=1)
    states, leaders = [], []
    for calls in range(1, order.shape[1] + 1):
        same = answers[:, :calls, None] == answers[:, None, :calls]
        votes = same.sum(axis=2)
        support = (same * asked[:, None, :calls]).sum(axis=2)
        leader = (support - 1e-6 * np.arange(calls)).argmax(axis=1)
        leaders.append(leader)
        ahead, share = votes[every, leader], support[every, leader] / asked[:, :calls].sum(axis=1)
        second = np.where(same[every, leader], 0, votes).max(axis=1)
        following = logit(asked[:, calls]) if calls < order.shape[1] else np.zeros(len(every))
        states.append(
            np.stack([
                np.ones(len(every)), ease, logit(asked[every, leader]), ahead, second, (1 / votes).sum(axis=1), share,
                ease * ahead, following, ahead >= 2, ahead >= 3, ahead - second >= 2,
            ], axis=1)
        )  # fmt: skip
    places = np.stack(leaders, axis=1)
    return Episodes(np.stack(states, axis=1), places, np.take_along_axis(right, places, axis=1), costs)


def learn(episodes: Episodes, price: float, order: str = "success") -> Policy:
    calls = episodes.right.shape[1]
    stop = [ridge(episodes.states[:, n], episodes.right[:, n]) for n in range(calls)]
    go: list[Array] = []
    value = episodes.right[:, -1]
    for n in reversed(range(calls - 1)):
        beyond = value - price * episodes.costs[:, n + 1]
        go.insert(0, ridge(episodes.states[:, n], beyond))
        value = np.where(episodes.states[:, n] @ go[0] > episodes.states[:, n] @ stop[n], beyond, episodes.right[:, n])
    return Policy(order, np.array(stop), np.array(go).reshape(calls - 1, episodes.states.shape[2]))


def calls_of(policy: Policy, episodes: Episodes) -> Rows:
    """How many calls each query gets: (queries,)."""
    number, asking = np.ones(len(episodes.right), dtype=int), np.ones(len(episodes.right), dtype=bool)
    for n in range(episodes.right.shape[1] - 1):
        asking = asking & (episodes.states[:, n] @ policy.go[n] > episodes.states[:, n] @ policy.stop[n])
        number[asking] = n + 2
    return number


def replay(policy: Policy, episodes: Episodes) -> tuple[Array, Array]:
    """(whether the answer is right, what it cost), (queries,) each."""
    number, every = calls_of(policy, episodes), np.arange(len(episodes.right))
    return episodes.right[every, number - 1], episodes.costs.cumsum(axis=1)[every, number - 1]


def learn_within(budget: float, episodes: Episodes, order: str = "success") -> tuple[Policy, float]:
    """(the policy, its price): the lowest price at which the mean cost of the training queries stays within the budget."""
    low, high = 1e-4, HIGHEST_PRICE  # of the mean cost of a call
    unit = episodes.costs.mean()
    for _ in range(ROUNDS):
        middle = float(np.sqrt(low * high))
        cost = replay(learn(episodes, middle / unit, order), episodes)[1].mean()
        low, high = (middle, high) if cost > budget else (low, middle)
    return learn(episodes, high / unit, order), high / unit


def learn_best(budget: float, by_order: dict[str, Episodes]) -> tuple[Policy, float]:
    """(the policy, its price), of the order with which the training queries are answered best. by_order: of ORDERS."""
    found = [learn_within(budget, episodes, order) for order, episodes in by_order.items()]
    return max(found, key=lambda each: float(replay(each[0], by_order[each[0].order])[0].mean()))


def off_policy_value(policy: Policy, price: float, episodes: Episodes, seed: int) -> tuple[float, float]:
    """(estimate, its standard error) of what the policy is paid, from a log that stops after a random number of calls.

    Doubly robust (Dudík et al. 2011): the policy's own forecast, corrected by what was paid where the log went as far as the
    policy would, weighted by how seldom that is. Checked against the replay of the whole log, which needs no estimate.
    """
    calls, every = episodes.right.shape[1], np.arange(len(episodes.right))
    logged = np.random.default_rng(seed).integers(1, calls + 1, len(every))
    number = calls_of(policy, episodes)
    first = episodes.states[:, 0]
    forecast = np.maximum(first @ policy.stop[0], first @ policy.go[0]) if calls > 1 else first @ policy.stop[0]
    paid = episodes.right[every, number - 1] - price * (episodes.costs.cumsum(axis=1)[every, number - 1] - episodes.costs[:, 0])
    weight = (logged >= number) * calls / (calls - number + 1)
    estimates = forecast + weight * (paid - forecast)
    return float(estimates.mean()), float(estimates.std() / np.sqrt(len(every)))


def ridge(features: Array, target: Array) -> Array:
    """Weights, of which the first belongs to the constant feature and is free."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    centre[0], spread[spread < 1e-9] = 0.0, 1.0
    scaled = (features - centre) / spread
    penalty = RIDGE * np.eye(features.shape[1])
    penalty[0, 0] = 0.0
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ target) / spread
    weights[0] -= weights[1:] @ centre[1:]
    return np.asarray(weights)


def chances_of(chances: Array, known: Array, success: Array, usual: float) -> Array:
    """With the prompts that r̂ was not fitted on: their success, moved by how easy r̂ finds the query.

    chances: (queries, fitted prompts); known: (prompts,) column in `chances`, -1 for none; success: (prompts,) on the training
    queries; usual: the mean ease of these.
    """
    moved = sigmoid(logit(success) + logit(chances).mean(axis=1, keepdims=True) - usual)
    return np.asarray(np.where(known >= 0, chances[:, known], moved))
