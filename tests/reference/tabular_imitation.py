"""Slow, obvious twins of tasks/tabular: every trajectory of a small problem written out, with its chance and its return."""

from itertools import product

import numpy as np


def trajectories(mdp):
    """(states, actions, chance that the dynamics allow it) of all that have a chance."""
    num_states, num_actions = mdp.reward.shape
    found = []
    for states in product(range(num_states), repeat=mdp.horizon):
        for actions in product(range(num_actions), repeat=mdp.horizon):
            chance = mdp.start[states[0]]
            for step in range(mdp.horizon - 1):
                chance *= mdp.transitions[states[step], actions[step], states[step + 1]]
            if chance > 0:
                found.append((states, actions, chance))
    return found


def collected(reward, states, actions):
    return sum(reward[state, action] for state, action in zip(states, actions, strict=True))


def visits(shape, states, actions):
    counts = np.zeros(shape)
    for state, action in zip(states, actions, strict=True):
        counts[state, action] += 1
    return counts


def chance_of(policy, states, actions):
    """Of the actions. policy: (T, S, A)."""
    chance = 1.0
    for step, (state, action) in enumerate(zip(states, actions, strict=True)):
        chance *= policy[step, state, action]
    return chance


def counts(mdp, policy):
    return sum(
        chance * chance_of(policy, states, actions) * visits(mdp.reward.shape, states, actions)
        for states, actions, chance in trajectories(mdp)
    )


def log_likelihood_gradient(mdp, demonstrated, reward):
    """Of trajectories with chances exp(return) / Z: demonstrated visits less those expected under these chances."""
    every = trajectories(mdp)
    weights = np.array([np.exp(collected(reward, states, actions)) for states, actions, _ in every])
    mean = sum(
        weight * visits(reward.shape, states, actions) for weight, (states, actions, _) in zip(weights, every, strict=True)
    )
    return demonstrated - mean / weights.sum()


def best_return(mdp, reward):
    """Over all deterministic policies that may change with the step, one after the other."""
    num_states, num_actions = reward.shape
    best = -np.inf
    for choice in product(range(num_actions), repeat=num_states * mdp.horizon):
        policy = np.eye(num_actions)[np.array(choice).reshape(mdp.horizon, num_states)]
        best = max(best, float((counts(mdp, policy) * reward).sum()))
    return best
