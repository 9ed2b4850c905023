"""A problem small enough to solve: states, actions and a horizon, with exact counts, values and policies.

S states, A actions, T steps. A policy is (T, S, A): the chance of each action, at each step and state; one of shape (S, A) or
(1, S, A) is the same at every step. Counts of a policy are (S, A): expected visits over the T steps, so they sum to T.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Mdp:
    """start: (S,), chances of the first state; transitions: (S, A, S), of the next; reward: (S, A), of the expert's task."""

    start: Array
    transitions: Array
    reward: Array
    horizon: int

    def __post_init__(self) -> None:
        states, actions, _ = self.transitions.shape
        if self.start.shape != (states,) or self.reward.shape != (states, actions):
            raise ValueError(
                f"start {self.start.shape} and reward {self.reward.shape} do not fit {states} states, {actions} actions"
            )
        for name, chances in {"start": self.start, "transitions": self.transitions}.items():
            if chances.min() < 0 or not np.allclose(chances.sum(axis=-1), 1):
                raise ValueError(f"{name}: chances must be at least 0 and sum to 1")
        if self.horizon < 1:
            raise ValueError(f"a horizon of {self.horizon} has no step; give at least 1")

    def at_every_step(self, policy: Array) -> Array:
        """The same policy as (T, S, A)."""
        return np.broadcast_to(policy, (self.horizon, *self.reward.shape))

    def counts(self, policy: Array) -> Array:
        """Expected visits of each state and action: (S, A), forward in time."""
        flow = self.transitions.reshape(-1, len(self.start))
        chances, total = self.start, np.zeros_like(self.reward)
        for at_step in self.at_every_step(policy):
            visits = chances[:, None] * at_step
            total += visits
            chances = visits.ravel() @ flow
        return total

    def value(self, policy: Array) -> float:
        """Expected return for the expert's task."""
        return float((self.counts(policy) * self.reward).sum())

    def action_values(self, policy: Array, reward: Array) -> Array:
        """Q: (T, S, A), backward in time, for any reward (S, A)."""
        values, after = np.empty((self.horizon, *reward.shape)), np.zeros(len(self.start))
        at_steps = self.at_every_step(policy)
        for step in reversed(range(self.horizon)):
            values[step] = reward + self.transitions @ after
            after = (at_steps[step] * values[step]).sum(axis=1)
        return values

    def soft_policy(self, reward: Array) -> Array:
        """The policy (T, S, A) that maximizes E[return] + entropy: soft value iteration, V = log Σ exp Q.

        Where transitions are deterministic it draws trajectories with chances ∝ exp(return) (Ziebart et al. 2008).
        """
        policy, after = np.empty((self.horizon, *reward.shape)), np.zeros(len(self.start))
        for step in reversed(range(self.horizon)):
            values = reward + self.transitions @ after
            top = values.max(axis=1)
            after = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
            policy[step] = np.exp(values - after[:, None])
        return policy

    def best_policy(self, reward: Array) -> Array:
        """The deterministic policy (T, S, A) that maximizes the return; of equal actions the first."""
        policy, after = np.zeros((self.horizon, *reward.shape)), np.zeros(len(self.start))
        for step in reversed(range(self.horizon)):
            values = reward + self.transitions @ after
            policy[step, np.arange(len(values)), values.argmax(axis=1)] = 1.0
            after = values.max(axis=1)
        return policy

    def sample(self, policy: Array, episodes: int, chance: np.random.Generator) -> tuple[Indices, Indices]:
        """Simulated episodes: states and actions, each (episodes, T)."""
        states, actions = np.empty((2, episodes, self.horizon), dtype=np.int64)
        by_state, by_action = _cumulative(self.at_every_step(policy)), self._cumulative_transitions
        num_states, num_actions = self.reward.shape
        state = _draw(_cumulative(self.start), np.zeros(episodes, dtype=np.int64), num_states, chance)
        for step in range(self.horizon):
            action = _draw(by_state, step * num_states + state, num_actions, chance)
            states[:, step], actions[:, step] = state, action
            state = _draw(by_action, state * num_actions + action, num_states, chance)
        return states, actions

    @cached_property
    def _cumulative_transitions(self) -> Array:
        return _cumulative(self.transitions)

    def mean_counts(self, states: Indices, actions: Indices) -> Array:
        """Visits per episode in a sample: (S, A), an estimate of counts()."""
        return self.counts_of_each(states, actions).mean(axis=0)

    def counts_of_each(self, states: Indices, actions: Indices) -> Array:
        """Visits in each episode: (episodes, S, A)."""
        counts = np.zeros((len(states), *self.reward.shape))
        np.add.at(counts, (np.arange(len(states))[:, None], states, actions), 1.0)
        return counts


def _cumulative(chances: Array) -> Array:
    """All rows of cumulative chances as one ascending line: row i lies between i and i + 1."""
    rows: Array = chances.reshape(-1, chances.shape[-1]).cumsum(axis=1)
    return (rows + np.arange(len(rows), dtype=np.float64)[:, None]).ravel()


def _draw(cumulative: Array, rows: Indices, size: int, chance: np.random.Generator) -> Indices:
    """An index below `size` for each of the rows."""
    found: Indices = np.searchsorted(cumulative, rows + chance.random(len(rows)), side="right") - rows * size
    found = np.minimum(found, size - 1)  # rounding may leave the last sum of a row below its end
    return found
