"""Learners of r̂ on fixed features: the chance that a seen prompt gets a query right. Each makes arrays, and predicts from them.

kernel   Ridge regression on rates with k(x, z) = exp(-GAMMA |x - z|), the Laplace kernel: smooth at a distance and sharp enough
         close by to remember a story that differs in its numbers only. With μ_j the mean of prompt j,

             r̂_j(x) = μ_j + d(x) + δ_j(x),   Σ_j δ_j = 0,   both by (K + diag(ν / calls)) α = target

         d is how easy the query is, δ_j what prompt j adds. A single call is noisy and prompts differ little, so ν is larger
         for δ: what one cannot know is shrunk to zero, and the choice falls back to the best prompt on average.
mlp      One hidden layer on the features, all prompts at once, cross-entropy weighted by calls, dropout, a few seeds.
mean     The mean of the two: no better than `kernel` on SVAMP and MAWPS, and several times the cost.
trees    Boosted trees on the features of query and prompt together, as the paper has it.

Left out, since cross-validation on four fifths of a log saw no gain in them: four networks instead of two, networks that also
predict the operation or the size of the answer, networks on principal axes, small trees as a third part of the mean, hidden
states of the number tokens, a sharper kernel, a margin that the best prompt's rivals must exceed to be chosen.

All but `trees` score prompts they have seen; tasks/prompt_oirl/selector.py says how they speak about unseen ones.
Arrays are float32 or int32, so a learner is stored as a plain .npz.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.core import seeds
from tasks.prompt_oirl.answers import Answers

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.floating[Any]]
State = dict[str, NDArray[Any]]

GAMMA = 1.5
AXES = 256  # of the features, kept for the kernel: distances hardly change, and scoring is four times cheaper
LANDMARKS = 6000  # more training queries than this, and the kernel sees a fixed random choice
NOISE = {"ease": 1.0, "difference": 8.0}  # ν, in calls

HIDDEN_SIZE = 64
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, ENSEMBLE = 600, 128, 6.0e-3, 1.0e-2, 2


def solve_kernel(features: Array, answers: Answers, seed: int) -> State:
    """α for each column of residuals on its own. It is linear in them, so any subset of the prompts is combined from this."""
    from scipy.linalg import cho_factor, cho_solve

    kept = np.sort(np.random.default_rng(seeds.derive(seed, "landmarks")).permutation(len(answers))[:LANDMARKS])
    answers, features = answers.of_rows(kept), features[kept]
    centre, axes = principal_axes(features, AXES)
    points = (features - centre) @ axes
    kernel = laplace(points, points)
    residuals = (answers.rates - answers.success).astype(np.float32)
    solved: State = {"kernel.centre": centre, "kernel.axes": axes, "kernel.points": points}
    for part, noise in NOISE.items():
        ridge = kernel.copy(order="F")  # as LAPACK wants it: solved in place
        ridge[np.diag_indices_from(ridge)] += (noise / answers.passes).astype(np.float32)
        solved[part] = cho_solve(cho_factor(ridge, overwrite_a=True, check_finite=False), residuals)
    return solved


def principal_axes(vectors: Array, number: int) -> tuple[Array, Array]:
    """(centre, orthonormal axes of the largest variance around it: (size, number)), float32"""
    centre = vectors.mean(axis=0)
    return centre, np.linalg.eigh(np.cov(vectors - centre, rowvar=False))[1][:, ::-1][:, :number].astype(np.float32)


def combine_kernel(solved: State, answers: Answers, columns: Sequence[int]) -> State:
    """Of the prompts in these columns. answers: under these prompts alone."""
    ease, difference = (solved[part][:, columns] for part in NOISE)
    weights = difference + (ease - difference).mean(axis=1, keepdims=True)
    shared = {name: array for name, array in solved.items() if name not in NOISE}
    return shared | {"kernel.weights": weights, "kernel.means": answers.success.astype(np.float32)}


def predict_kernel(state: State, features: Array) -> Array:
    points = (features - state["kernel.centre"]) @ state["kernel.axes"]
    pieces = [points[i : i + 512] for i in range(0, len(points), 512)]
    rates = [laplace(piece, state["kernel.points"]) @ state["kernel.weights"] + state["kernel.means"] for piece in pieces]
    return np.concatenate(rates)


def laplace(left: Array, right: Array) -> Array:
    """exp(-GAMMA |x - z|) of all pairs, float32. In one array: at 7000 queries it is 200 MB, and each pass over it counts."""
    pairs = left @ (-2 * right.T)
    pairs += (left**2).sum(axis=1)[:, None]
    pairs += (right**2).sum(axis=1)
    np.sqrt(np.maximum(pairs, 0, out=pairs), out=pairs)
    pairs *= -GAMMA
    return np.asarray(np.exp(pairs, out=pairs))


def fit_mlp(features: Array, answers: Answers, seed: int, members: int = ENSEMBLE) -> State:
    """Trained by AdamW with a learning rate that falls to zero; the output starts at the mean of each prompt."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    scale = 1 / features.std(axis=0).mean()
    inputs = torch.tensor(features * scale, dtype=torch.float32)
    rates, calls = (torch.tensor(table, dtype=torch.float32) for table in (answers.rates, answers.calls / answers.calls.mean()))
    state: State = {"mlp.scale": np.array([scale], dtype=np.float32)}
    for member in range(members):
        with torch.random.fork_rng():
            torch.manual_seed(seeds.derive(seed, "mlp", member))
            hidden, output = nn.Linear(features.shape[1], HIDDEN_SIZE), nn.Linear(HIDDEN_SIZE, rates.shape[1])
            network = nn.ModuleDict({"hidden": hidden, "output": output})
            output.bias.data = torch.logit(torch.tensor(answers.success, dtype=torch.float32).clamp(0.01, 0.99))
            optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
            coins = np.random.default_rng(seeds.derive(seed, "dropout", member))
            order = seeds.batches(len(answers), min(BATCH_SIZE, len(answers)), seeds.derive(seed, "mlp", member))
            for step in range(STEPS):
                optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
                indices = next(order)
                states = F.silu(hidden(halve(inputs[indices], coins)))
                loss = F.binary_cross_entropy_with_logits(output(halve(states, coins)), rates[indices], weight=calls[indices])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        state |= {f"mlp.{member}.{name}": tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    return state


def halve(states: "Tensor", coins: np.random.Generator) -> "Tensor":
    """Dropout of a half, one random bit per number: torch draws a float for each, which costs more than the training."""
    import torch

    bits = np.unpackbits(np.frombuffer(coins.bytes(states.numel() // 8 + 1), dtype=np.uint8))[: states.numel()]
    return states * torch.from_numpy(bits.reshape(states.shape) * np.float32(2))


def predict_mlp(state: State, features: Array) -> Array:
    chances, members = np.zeros(1), sum(name.endswith("hidden.bias") for name in state)
    for member in range(members):
        hidden = features * state["mlp.scale"] @ state[f"mlp.{member}.hidden.weight"].T + state[f"mlp.{member}.hidden.bias"]
        logits = hidden * sigmoid(hidden) @ state[f"mlp.{member}.output.weight"].T + state[f"mlp.{member}.output.bias"]
        chances = chances + sigmoid(logits) / members
    return chances


def predict_mean(state: State, features: Array) -> Array:
    return (predict_kernel(state, features) + predict_mlp(state, features)) / 2


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


PREDICT: dict[str, Callable[[State, Array], Array]] = {"kernel": predict_kernel, "mlp": predict_mlp, "mean": predict_mean}
