"""What of the differences between prompts is real: measured on a world whose chances are known."""

import numpy as np
import pytest

from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.noise import noise_figures

PROMPTS = {"plain": "Answer:", "steps": "Think step by step."}


def world(queries: int, calls: int) -> tuple[np.ndarray, Answers]:
    """(true chances, what came)"""
    chance = np.random.default_rng(0)
    chances = np.clip(np.array([0.55, 0.5]) + chance.normal(0, 0.15, (queries, 2)), 0.02, 0.98)
    right = chance.binomial(calls, chances).astype(float)
    return chances, Answers([str(i) for i in range(queries)], PROMPTS, right, np.full((queries, 2), float(calls)))


def test_share_ceiling_and_slope_are_those_of_the_world():
    chances, answers = world(60000, 4)
    found = noise_figures(chances, answers, 0, seed=0)
    real = (chances[:, 1] - chances[:, 0]).var()
    luck = (chances * (1 - chances) / 4).mean(axis=0).sum()
    assert found["real_share"] == pytest.approx(real / (real + luck), abs=0.03)
    assert found["ceiling_success"] == pytest.approx(chances.max(axis=1).mean(), abs=0.01)
    assert found["explained_share"] == pytest.approx(1, abs=0.1)
    assert found["slope"] == pytest.approx(1, abs=0.06)
    assert answers.rates.max(axis=1).mean() > found["ceiling_success"] + 0.03  # hindsight is luck too


def test_half_of_a_contrast_explains_it_and_needs_a_slope_of_two():
    chances, answers = world(60000, 4)
    halved = chances[:, [0]] + np.array([0.0, 0.5]) * (chances - chances[:, [0]])
    found = noise_figures(halved, answers, 0, seed=0)
    assert found["slope"] == pytest.approx(2, abs=0.12)
    assert found["explained_share"] == pytest.approx(1, abs=0.1)


def test_single_calls_do_not_measure_their_luck():
    assert noise_figures(*world(200, 1), 0, seed=0) == {}
    assert noise_figures(*world(20, 4), 0, seed=0) == {}
