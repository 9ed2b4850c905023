"""Reward models: a language model's backbone with one linear output, as `AutoModelForSequenceClassification` folders.

The score's mean and standard deviation on samples of the SFT model are stored in config.json (`score_mean`, `score_std`),
so that every user of the folder can standardise it the same way. A reward model that another tool made may read by another
tokenizer than the policy writes with: it then reads the text again, in the layout of tasks/models/text.py.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tasks.core.errors import InputError
from tasks.models.architecture import context_length
from tasks.models.batch import Batch, collate
from tasks.models.classifier import load_with_head
from tasks.models.compute import at_once
from tasks.models.language import check_model_folder, in_float32
from tasks.models.text import decode, encode_completions, encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tasks.rl.logprobs import by_rows

ROWS_AT_ONCE = 64
MEMBER = "member-{}"  # folder of the second and later members of an ensemble, inside that of the first


def reward_model_from_policy(folder: Path, device: str) -> Any:
    """The SFT model with its last layer replaced by a linear head, which starts at zero: every score is 0 at first."""
    check_model_folder(folder, None)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=True, dtype="auto")
    except ValueError:
        raise InputError(
            f"{folder}: transformers has no reward model of this architecture; set `reward_model.source` to one from elsewhere"
        ) from None
    model.score.weight.data.zero_()
    model.tokenizer = load_tokenizer(folder)
    return in_float32(model).to(device).eval()


def reward_model_from_elsewhere(source: str, revision: str | None, device: str) -> Any:
    """A folder or hub name with a trained head of one output. Raises InputError with one sentence."""
    model = load_with_head(source, revision, "reward model")
    if model.config.num_labels != 1:
        raise InputError(f"{source} gives {model.config.num_labels} numbers for a text (num_labels); a reward model gives one")
    model.tokenizer = load_tokenizer(source, revision)
    if len(model.tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(model.tokenizer))  # a pad token was added
    model.config.pad_token_id = model.tokenizer.pad_token_id  # the score is read at the last token that is not this one
    return in_float32(model).to(device).eval()


def draw_head(reward_model: Any, generator: torch.Generator) -> None:
    """A head of its own for a further member of an ensemble: N(0, 1 / (hidden + 1)), as in Stiennon et al. 2020."""
    weight = reward_model.score.weight.data
    weight.copy_(torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5)


def with_language_head(reward_model: Any, policy: Any) -> Any:
    """A language model on the reward model's backbone, with the head of `policy`, which it takes apart.

    Trained on both losses, the backbone serves both heads; the score's head is not part of it (Askell et al. 2021).
    """
    setattr(policy, policy.base_model_prefix, reward_model.base_model)
    policy.tie_weights()
    return policy


def load_reward_model(folder: Path, device: str) -> Any:
    """That of the stage reward_model, with its tokenizer as `.tokenizer`; of an ensemble, the first member."""
    check_model_folder(folder, None)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, use_safetensors=True, dtype="auto")
    model.tokenizer = load_tokenizer(folder)
    return in_float32(model).requires_grad_(False).to(device).eval()


def load_ensemble(folder: Path, device: str) -> list[Any]:
    """All members; each is a folder that loads as a reward model by itself."""
    others = (folder / MEMBER.format(number) for number in itertools.count(2))
    return [load_reward_model(each, device) for each in (folder, *itertools.takewhile(Path.exists, others))]


@by_rows
def raw_scores(reward_model: Any, batch: Batch) -> Tensor:
    """The head's output at the last token of each completion: (batch,). The ids are those of the reward model's tokenizer."""
    context = context_length(reward_model)
    longest = int(batch.attention_mask.sum(1).max())
    if longest > context:
        raise InputError(
            f"a prompt with its completion has {longest} tokens, the reward model's max_position_embeddings is {context}; "
            "lower task.max_prompt_tokens and task.max_new_tokens, or take another reward model"
        )
    outputs = reward_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    return outputs.logits[:, 0]


@torch.no_grad()
def standardise_on(batch: Batch, reward_model: Any, tokenizer: Any) -> Tensor:
    """Take mean and deviation of the scores from these samples; returns the scores as they are: (batch,)."""
    batch = as_read_by(reward_model, batch, tokenizer)
    scores = torch.cat([raw_scores(reward_model, part) for part in batch.split(at_once(reward_model, len(batch)))])
    reward_model.config.score_mean = scores.mean().item()
    reward_model.config.score_std = max(scores.std().item(), 1e-6)
    return scores


def standardised_scores(reward_model: Any, batch: Batch, tokenizer: Any) -> Tensor:
    """Mean 0 and standard deviation 1 over samples of the SFT model: (batch,). tokenizer: what the batch's ids belong to."""
    scores = scores_in_pieces(reward_model, as_read_by(reward_model, batch, tokenizer))
    return (scores - reward_model.config.score_mean) / reward_model.config.score_std


@torch.no_grad()
def scores_in_pieces(reward_model: Any, batch: Batch) -> Tensor:
    """raw_scores without gradient, of a batch of any size: (batch,)."""
    scores = torch.zeros(len(batch), device=batch.completion_ids.device)
    for rows, micro in batch.micro_batches(at_once(reward_model, ROWS_AT_ONCE)):
        scores[rows] = raw_scores(reward_model, micro)
    return scores


def disagreement(reward_models: Sequence[Any], batch: Batch, tokenizer: Any) -> Tensor:
    """Standard deviation of the members' standardised scores, in units of the score: (batch,). 0 for a single one."""
    return torch.stack([standardised_scores(each, batch, tokenizer) for each in reward_models]).std(0, correction=0)


@by_rows
def token_scores(reward_model: Any, batch: Batch) -> Tensor:
    """The head after each completion token: (batch, time), in units of raw_scores, which is the last of them."""
    hidden = reward_model.base_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return reward_model.score(hidden[:, -batch.time :]).squeeze(-1)


@by_rows
def state_values(critic: Any, batch: Batch) -> Tensor:
    """The head's output at the state that each completion token is predicted from: (batch, time), in units of raw_scores.

    A reward model read in this way is a value function to start from: where raw_scores is the head after the last token, this
    is the head before each.
    """
    hidden = critic.base_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return critic.score(hidden[:, -batch.time - 1 : -1]).squeeze(-1)


def as_read_by(reward_model: Any, batch: Batch, tokenizer: Any) -> Batch:
    """The same texts in the reward model's token ids: the batch itself if its tokenizer is no other.

    Control tokens do not cross over: a chat template's are left out, and a completion that ended by itself ends with the
    reward model's end-of-text. One that was cut off has none there either.
    """
    own = reward_model.tokenizer
    if same_ids(tokenizer, own):
        return batch
    texts = [decode(tokenizer, ids) for ids in batch.prompts()]
    completions = batch.completions()
    encoded = encode_completions(own, [decode(tokenizer, ids) for ids in completions])
    ended = [ids[-1] in tokenizer.all_special_ids for ids in completions]
    encoded = [ids if whole else ids[:-1] for ids, whole in zip(encoded, ended, strict=True)]
    return collate(encode_prompts(own, texts), encoded, own.pad_token_id, str(batch.prompt_ids.device))


def check_padding(reward_model: Any, batch: Batch) -> None:
    """Refuse an architecture whose score depends on the padding, as where positions do not count from 0."""
    with torch.no_grad():
        scores = raw_scores(reward_model, batch)
        alone = [
            reward_model(input_ids=ids[mask == 1][None]).logits[0, 0]
            for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
    if not torch.allclose(scores, torch.stack(alone), rtol=1e-3, atol=1e-3):
        raise InputError(
            f"a {reward_model.config.model_type} reward model scores a text differently when it is padded on the left; "
            "take one with a causal language model's backbone"
        )


def same_ids(tokenizer: Any, other: Any) -> bool:
    """Whether the ids of two tokenizers mean the same."""
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    return tokenizer is other or (
        tokenizer.get_vocab() == other.get_vocab() and all(getattr(tokenizer, id) == getattr(other, id) for id in special)
    )
