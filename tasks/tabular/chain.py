"""The two chains on which imitation is studied.

`road`: the mechanism behind theorems 1.1 and 1.4 of Sun 2023 (Ross and Bagnell 2010; Ross et al. 2011). At each step the road
looks in one of many ways, some of them rare, and has one right action. A wrong one leads off the road, where the expert never
is: who has not learned there to go back stays.

`walk`: a walk along positions that pay differently. Nothing is left to chance but the actions, as in text, where the next
state is the last one and a token.
"""

import numpy as np

from tasks.tabular.mdp import Array, Indices, Mdp

STRAIGHT, LEFT, RIGHT, BACK = range(4)
STEPS = (-1, 0, 1)  # actions of the walk


def road(looks: int, rarity: float, horizon: int) -> tuple[Mdp, Indices]:
    """The problem, and the expert's action in each of the looks + 1 states, of which the last is off the road.

    looks: ways the road can look, drawn anew at each step, each `rarity` times as likely as the one before; the right
    actions are straight, left, straight, right and again. reward: -1 for a wrong action, so a return is minus the number of
    errors, and the expert's is 0.
    """
    if looks < 1 or not 0 < rarity < 1:
        raise ValueError(f"a road needs at least one look and a rarity between 0 and 1, not {looks} and {rarity}")
    off = looks
    chances = np.append(rarity ** np.arange(looks), 0.0)
    chances /= chances.sum()
    expert = np.append(np.resize([STRAIGHT, LEFT, STRAIGHT, RIGHT], looks), BACK)
    right = np.eye(4)[expert]
    transitions = right[:, :, None] * chances
    transitions[:, :, off] = 1.0 - right
    return Mdp(chances, transitions, right - 1.0, horizon), expert


def walk(pay: Array, horizon: int) -> Mdp:
    """One step left, none, or one step right, from the middle; beyond the ends there is nothing. pay: of each position."""
    positions = len(pay)
    transitions = np.zeros((positions, len(STEPS), positions))
    for position in range(positions):
        for action, step in enumerate(STEPS):
            transitions[position, action, np.clip(position + step, 0, positions - 1)] = 1.0
    start = np.eye(positions)[positions // 2]
    return Mdp(start, transitions, np.repeat(pay[:, None], len(STEPS), axis=1), horizon)
