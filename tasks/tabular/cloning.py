"""Behavior cloning and DAgger: the same supervised learner, on the states of the expert or on its own.

Behavior cloning learns the expert's actions on the expert's states. With an error rate ε there its cost may grow like T²ε
(Sun 2023, theorem 1.1; Ross and Bagnell 2010): one error leads to states without labels, and it errs to the end.
DAgger (Ross, Gordon and Bagnell 2011, algorithm 3.1, with β_i = 1 for i = 1 and 0 after) lets the expert label the states
that the learner visits, adds them to all earlier ones, and learns again. Where the expert knows the way back its cost grows
like Tε (theorem 1.4). The theorem speaks of the best policy of the sequence; here the last is taken.
"""

import numpy as np

from tasks.tabular.mdp import Array, Indices, Mdp


def learn(states: Indices, actions: Indices, shape: tuple[int, ...]) -> Array:
    """The most frequent label of each state, as a policy (S, A); where there is none, the most frequent label of all.

    A table cannot generalize better than that: it does in new places what it usually does. Of equal counts the first wins.
    """
    counts = np.zeros(shape)
    np.add.at(counts, (states.ravel(), actions.ravel()), 1.0)
    unseen = counts.sum(axis=1) == 0
    counts[unseen] = counts.sum(axis=0)
    return np.eye(shape[1])[counts.argmax(axis=1)]


def behavior_cloning(mdp: Mdp, expert: Indices, num_labels: int, chance: np.random.Generator) -> Array:
    """A policy (S, A) from labels of whole episodes of the expert."""
    own = np.eye(mdp.reward.shape[1])[expert]
    states, _ = mdp.sample(own, _episodes(mdp, num_labels), chance)
    return learn(states, expert[states], mdp.reward.shape)


def dagger(mdp: Mdp, expert: Indices, num_labels: int, iterations: int, chance: np.random.Generator) -> Array:
    """A policy (S, A) from as many labels, an equal part of them in each iteration, the first part on the expert's states."""
    if num_labels % iterations:
        raise ValueError(f"{num_labels} labels cannot be shared equally by {iterations} iterations")
    policy = np.eye(mdp.reward.shape[1])[expert]
    states = np.empty((0, mdp.horizon), dtype=np.int64)
    for _ in range(iterations):
        visited, _ = mdp.sample(policy, _episodes(mdp, num_labels // iterations), chance)
        states = np.concatenate([states, visited])
        policy = learn(states, expert[states], mdp.reward.shape)
    return policy


def _episodes(mdp: Mdp, num_labels: int) -> int:
    if num_labels < 1 or num_labels % mdp.horizon:
        raise ValueError(f"{num_labels} labels are not whole episodes of {mdp.horizon} steps; give a multiple")
    return num_labels // mdp.horizon
