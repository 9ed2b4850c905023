"""A judge that is a language model on this machine, with its own tokenizer, and the probabilities of what it says: 1 or 2.

One with a chat template is asked in it: the question is the turn of the user, and the judge answers in its own.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tasks.core.errors import InputError
from tasks.core.stage import Stage
from tasks.models.architecture import context_length
from tasks.models.batch import collate, micro_batches
from tasks.models.chat import adopt_template, write_prompt
from tasks.models.check import check_architecture
from tasks.models.compute import at_once
from tasks.models.external import pinned
from tasks.models.language import load_model
from tasks.models.text import encode_completions, encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tasks.rewards.judge.settings import OWN_JUDGES, JudgeConfig
from tasks.rewards.judge.texts import behind
from tasks.rl.logprobs import completion_logprobs

ROWS_AT_ONCE = 32
VERDICT_TOKENS = 4  # room for a space or a line before the 1 or 2


def open_judge(config: JudgeConfig, stage: Stage) -> tuple[Any, Any, str]:
    """(model, tokenizer, folder or hub name) of a local judge."""
    if config.model in OWN_JUDGES:
        folder = stage.dep(f"models/{config.model}")
        if not (folder / "config.json").exists():
            raise InputError(f"{config.namespace}.model is judge_model, which was not trained: raise judge_model.num_steps")
        return load_model(folder, stage.device).eval(), load_tokenizer(folder), folder.as_posix()
    source = pinned(config.model, config.model_revision, config.namespace, "model")
    model = load_model(source, stage.device, config.model_revision).eval()
    tokenizer = load_tokenizer(source, config.model_revision)
    check_architecture(model, tokenizer)
    if tokenizer.chat_template:
        adopt_template(tokenizer, None)
    return model, tokenizer, source


def in_turns(tokenizer: Any, question: str) -> str:
    """The question as the judge reads it."""
    return write_prompt(tokenizer, [{"role": "user", "content": question}]) if tokenizer.chat_template else question


@torch.inference_mode()
def first_probabilities(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """P("1") against P("2") behind each text, by Σ log π of either, whether or not they are one token each: what both begin
    with, as a space, cancels."""
    probabilities: list[float] = []
    for piece in micro_batches(texts, at_once(model, ROWS_AT_ONCE)):
        completions = [verdict for side in "12" for verdict in encode_verdicts(tokenizer, piece, [side] * len(piece))]
        batch = collate(encode_prompts(tokenizer, piece) * 2, completions, tokenizer.pad_token_id, str(model.device))
        logprobs = (completion_logprobs(model, batch) * batch.completion_mask).sum(1).double().cpu()
        first, second = logprobs.chunk(2)
        probabilities += [float(probability) for probability in torch.sigmoid(first - second)]
    return probabilities


def encode_verdicts(tokenizer: Any, texts: Sequence[str], verdicts: Sequence[str]) -> list[list[int]]:
    """The token ids of each verdict behind its text, without end-of-text: nobody asks what a judge says next."""
    written = [behind(text, verdict) for text, verdict in zip(texts, verdicts, strict=True)]
    return [ids[:-1] for ids in encode_completions(tokenizer, written)]


def refuse_too_long(model: Any, longest: int) -> None:
    """longest: tokens of a question and of what is said to it."""
    if longest > (room := context_length(model)):
        raise InputError(
            f"a question to the judge takes {longest} tokens, it reads {room} at most; "
            f"shorten the file of {JudgeConfig.namespace}.templates, or take a judge that reads more"
        )
