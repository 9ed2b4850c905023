"""Completions of the SFT model, shown to whoever gives feedback."""

from collections.abc import Sequence
from typing import Any

from tasks.core import progress, seeds
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table
from tasks.core.stage import Stage
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.generate import sample
from tasks.models.text import TaskConfig, decode, encode_completions, encode_prompt

PROMPTS_AT_ONCE = 128

Sampled = tuple[Row, str, list[tuple[str, int]]]  # a prompt, its split, what can be read: text and tokens with end-of-text


def load_questions(config: CollectPreferencesConfig, stage: Stage) -> list[Row]:
    """The training prompts that are asked about: the first of them. A judge that is trained here learns from the others."""
    prompts = [row for row in read_table(stage.dep("data/prepared/prompts.parquet")) if row["split"] == "train"]
    return prompts[: config.num_prompts]


def sample_completions(
    prompts: Sequence[Row], policy: Any, tokenizer: Any, task: TaskConfig, config: CollectPreferencesConfig, stage: Stage
) -> tuple[list[Sampled], int]:
    """`samples_per_prompt` of each; and how many cannot be read: blank, or too long once written down as text."""
    held_out = {row["prompt"] for row in prompts[: config.held_out_prompts]}
    pieces = [prompts[i : i + PROMPTS_AT_ONCE] for i in range(0, len(prompts), PROMPTS_AT_ONCE)]
    sampled: list[Sampled] = []
    unreadable = 0
    for number, piece in enumerate(progress.track(pieces, len(pieces), stage.name)):
        rollout = sample(
            policy,
            tokenizer,
            [encode_prompt(tokenizer, row["prompt"]) for row in piece],
            max_new_tokens=task.max_new_tokens,
            temperature=config.temperature,
            generator=seeds.generator(stage.seed, "samples", number),
            group_size=config.samples_per_prompt,
        )
        texts = [decode(tokenizer, ids) for ids in rollout.completions()]
        lengths = [len(ids) for ids in encode_completions(tokenizer, texts)]
        readable = [bool(text.strip()) and n <= task.max_new_tokens for text, n in zip(texts, lengths, strict=True)]
        unreadable += readable.count(False)
        for index, row in enumerate(piece):
            begin = index * config.samples_per_prompt
            shown = [(texts[i], lengths[i]) for i in range(begin, begin + config.samples_per_prompt) if readable[i]]
            sampled.append((row, "test" if row["prompt"] in held_out else "train", shown))
    return sampled, unreadable


def refuse_unanswered(prompts: Sequence[Row], config: CollectPreferencesConfig) -> None:
    """The simulated annotator needs answers for the verifier, and solutions where he writes corrections."""
    if "verifier" in config.utility and any(row["answer"] is None for row in prompts):
        raise InputError(
            "collect_preferences.utility names the verifier, which needs prompts with an answer; "
            "name functions of the text instead, or set collect_preferences.source to dataset"
        )
    if config.kind == "correction" and any(not row["solution"] for row in prompts):
        raise InputError(
            "collect_preferences.kind is correction, which needs prompts with a solution to write; "
            "choose another kind, or set collect_preferences.source to dataset"
        )
