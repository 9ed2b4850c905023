"""The optimizer does what `optimizer` in params.yaml says: schedules, clipping, betas and weight decay."""

import copy
import math

import pytest
import torch

from tasks.models.optimizer import Optimizer, OptimizerConfig, warmup_constant, warmup_cosine
from tests.project import PARAMS


def settings(**changed):
    return OptimizerConfig.model_validate(PARAMS["optimizer"] | changed)


def test_the_cosine_warms_up_and_ends_at_its_share():
    rates = [warmup_cosine(step, 100, 2.0, settings(warmup_share=0.1, final_share=0.25)) for step in range(101)]
    assert rates[0] == pytest.approx(0.2, rel=1e-3)
    assert max(rates) == rates[9] <= 2.0
    assert rates[100] == pytest.approx(0.5)
    assert warmup_cosine(0, 100, 2.0, settings(warmup_share=0.0)) == 2.0


def test_the_constant_schedule_warms_up():
    assert [warmup_constant(step, 1.0, settings(warmup_steps=4)) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warmup_constant(0, 1.0, settings(warmup_steps=0)) == 1.0


@pytest.mark.parametrize(("max_grad_norm", "moved"), [(None, 4.0), (1.0, 1.0), (0.5, 0.5)])
def test_the_gradient_is_clipped_before_the_step(max_grad_norm, moved):
    """The first moment after one step is (1 - beta1) times what was left of a gradient of norm 4."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = Optimizer([parameter], settings(max_grad_norm=max_grad_norm, beta1=0.5))
    parameter.grad = torch.tensor([4.0])
    assert optimizer.constant_step(0, 0.1) == 4.0
    assert optimizer.state[parameter]["exp_avg"].item() == pytest.approx(0.5 * moved, rel=1e-5)
    assert parameter.grad is None


def test_weight_decay_shrinks_what_has_no_gradient_to_speak_of():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = Optimizer([parameter], settings(weight_decay=0.5, warmup_steps=0))
    parameter.grad = torch.zeros(1)
    optimizer.constant_step(0, 0.1)
    assert parameter.item() == pytest.approx(0.95)


def test_the_last_weights_are_averaged_also_after_a_checkpoint():
    """The mean of the weights after steps 7 to 10, and none of it before the last step."""

    def train(average_share, stop_at=None):
        parameter, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        optimizer, weights = Optimizer([parameter, frozen], settings(average_share=average_share)), []
        for step in range(10):
            if step == stop_at:
                saved, parameter = optimizer.state_dict(), torch.nn.Parameter(parameter.detach().clone())
                optimizer = Optimizer([parameter, frozen], settings(average_share=average_share))
                optimizer.load_state_dict(copy.deepcopy(saved))
            parameter.grad = torch.tensor([1.0, -1.0, 2.0]) * math.sin(step)
            optimizer.cosine_step(step, 10, 0.1)
            weights.append(parameter.detach().clone())
        return torch.stack(weights)

    plain, averaged = train(0.0), train(0.4)
    assert torch.equal(averaged[:-1], plain[:-1])
    torch.testing.assert_close(averaged[-1], plain[-4:].mean(dim=0))
    assert not torch.allclose(averaged[-1], plain[-1])
    assert torch.equal(train(0.4, stop_at=8)[-1], averaged[-1])
