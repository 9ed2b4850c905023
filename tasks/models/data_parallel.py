"""The rows of a batch, shared out among the processes of a stage (tasks/core/processes.py); a stage of one keeps them all.

Every process has the same weights and data and draws the same random numbers, so it runs the algorithm as if it were alone. It
gives the model its own rows only, and all get the results of all: losses, advantages and metrics are of the whole batch, and
what nobody shares out is simply computed by all.

Gradients. Each process has the whole loss, and its backward pass goes through its own rows. Multiplied there by the number of
processes, and averaged by the optimizer, the gradient is that of the whole batch; that of what all compute stays what it is.
The additions come in another order than in one process, which changes the last bits.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

from tasks.core.processes import collective


def count() -> int:
    """Processes of this stage."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 is the first, which alone writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_rows(total: int) -> list[int]:
    """Of so many: the rank-th and each count-th after it, so that long and short rows, sorted, are dealt fairly.

    Where there are fewer rows than processes, one without a row computes the first, for nothing: all take the same path.
    """
    return [*range(rank(), total, count())] or [0]


def whole(own: Tensor, total: int) -> Tensor:
    """All rows, (total, …), from the own ones of every process."""
    return own if count() == 1 else cast(Tensor, _Whole.apply(own, total))


def share_rows(function: Callable[..., Any], model: Any, batch: Any, *others: Any) -> Any:
    """function(model, batch, *others), of whose rows each process computes its own. Tensors among the others have rows, too."""
    total = len(batch)
    own = own_rows(total)
    others = tuple(other[own] if isinstance(other, Tensor) else other for other in others)
    result = function(model, batch.select(torch.tensor(own, device=batch.completion_ids.device)), *others)
    if isinstance(result, tuple):
        return tuple(whole(part, total) for part in result)
    return whole(result, total)


@torch.no_grad()
def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Over the processes, in one sum."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    with collective():
        distributed.all_reduce(flat)
    flat /= count()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class _Whole(torch.autograd.Function):
    """The sum of what every process puts into its rows of nothing; every sum has one term, so no bit changes."""

    @staticmethod
    def forward(context: Any, own: Tensor, total: int) -> Tensor:
        result = own.new_zeros(total, *own.shape[1:])
        if rank() < total:
            result[rank() :: count()] = own
        with collective():
            distributed.all_reduce(result)
        return result

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if rank() < len(gradient):
            return gradient[rank() :: count()] * count(), None
        return torch.zeros_like(gradient[:1]), None
