"""Processes that share out rows give what one gives: text, log-probabilities, gradients; each reads its own rows only."""

import copy
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.launcher import run_together
from tasks.core.processes import joined
from tasks.models.batch import collate
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.data_parallel import average_gradients, whole
from tasks.models.generate import sample
from tasks.rl.logprobs import completion_logprobs_and_hidden
from tests.project import PARAMS

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13], [14, 15], [16, 17]]
COMPLETIONS = [[14, 2], [15, 16, 17, 18, 2], [19], [20, 21], [22, 23, 24]]


def in_processes(count, folder, work):
    """The tensors by name that work() returns in each of them."""

    def run_one():
        with joined(count, "cpu"):
            found = work()
        save_file({name: value.contiguous() for name, value in found.items()}, folder / os.environ["RANK"])
        return 0

    folder.mkdir()
    assert run_together("test", count, run_one) == 0
    return [load_file(folder / str(number)) for number in range(count)]


def shared_out(model):
    """A copy whose rows are shared out, and a list that tells how many rows it has read in each forward pass."""
    model, rows = copy.deepcopy(model), []
    model.get_input_embeddings().register_forward_pre_hook(lambda part, args: rows.append(len(args[0])))
    return apply_settings(model, ComputeConfig.model_validate(PARAMS["compute"])), rows


@pytest.mark.parametrize("count", [2, 3])
def test_the_text_is_that_of_one_process(model, tokenizer, tmp_path, count):
    def work():
        parallel, rows = shared_out(model)
        generator = torch.Generator().manual_seed(0)
        rollout = sample(parallel, tokenizer, PROMPTS, max_new_tokens=12, temperature=1.0, generator=generator, group_size=2)
        return vars(rollout) | {"rows": torch.tensor(rows)}

    (alone,) = in_processes(1, tmp_path / "1", work)
    together = in_processes(count, tmp_path / "n", work)
    assert [found.pop("rows").max().item() for found in (alone, *together)] == [10, *([6, 4] if count == 2 else [4, 4, 2])]
    assert len(alone["completion_ids"]) == 10
    for found in together:
        for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "finished"):
            assert torch.equal(found[name], alone[name])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(2, 5), (3, 5), (2, 1)])
def test_log_probabilities_and_gradients_are_those_of_one_process(model, tmp_path, count, size):
    """Within 2e-4, of gradients above 10: the additions come in another order. The value head is computed by all alike."""
    batch = collate(PROMPTS[:size], COMPLETIONS[:size], 0, "cpu")

    def work():
        parallel, rows = shared_out(model)
        head = torch.nn.Linear(16, 1)
        torch.nn.init.constant_(head.weight, 0.1)
        logprobs, states = completion_logprobs_and_hidden(parallel, batch, 0.7)
        loss = ((logprobs + head(states).squeeze(-1)).square() * batch.completion_mask).sum()
        loss.backward()
        parameters = {f"gradient of {name}": value for name, value in parallel.named_parameters()} | {"head": head.weight}
        average_gradients(parameters.values())
        found = {name: value.grad for name, value in parameters.items()}
        return found | {"logprobs": logprobs.detach(), "states": states.detach(), "rows": torch.tensor(rows)}

    (alone,) = in_processes(1, tmp_path / "1", work)
    together = in_processes(count, tmp_path / "n", work)
    assert alone.pop("rows").tolist() == [size]
    assert [found.pop("rows").tolist() for found in together] == [[len(range(rank, size, count)) or 1] for rank in range(count)]
    for found in together:
        torch.testing.assert_close(found, alone, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(found, together[0], atol=0, rtol=0)


def test_one_process_keeps_what_it_has():
    own = torch.ones(3, 2)
    assert whole(own, 3) is own
