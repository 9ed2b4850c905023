"""Preference collection: samples of the SFT model judged by an annotator, or the pairs of a data set.

The simulated annotator sees `samples_per_prompt` completions of each prompt and is asked about `pairs_per_prompt` of them.
What it values says `utility`, by the names of tasks/feedback/functions.py and `verifier`; only the latter needs answers.
Where right answers count, one question for `contrast_rate` of the prompts is a right solution against a colleague's mistake
in the same format: without these, "shorter" is mostly "right" among the samples of a weak model, and the reward model learns
length.

Writes data/preferences.parquet: id, prompt, chosen, rejected, split (train | test), gap (true utility of chosen − rejected;
null for a data set).

Metrics
  pairs, test_pairs    all, and those held out to measure the reward model
  flip_rate            share of pairs where noise chose the worse one; 1 − flip_rate bounds any reward model's accuracy
  unreadable_samples   shown to nobody: blank, or too long once written down as text (cut off, or broken bytes)
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from tasks.core import progress, seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.annotator import DECISIVE, Candidate, choose_pairs, prefers_first, utility
from tasks.feedback.functions import FUNCTIONS, FunctionsConfig, check_components
from tasks.feedback.verifier import is_correct
from tasks.models.generate import sample
from tasks.models.language import load_policy
from tasks.models.text import TaskConfig, decode, encode_completion, encode_completions, encode_prompt

PROMPTS_AT_ONCE = 128


class CollectPreferencesConfig(Config):
    """params.yaml: collect_preferences"""

    namespace = "collect_preferences"

    source: str
    num_prompts: PositiveInt
    held_out_prompts: NonNegativeInt
    samples_per_prompt: PositiveInt
    pairs_per_prompt: PositiveInt
    temperature: PositiveFloat
    bradley_terry_temperature: PositiveFloat
    utility: dict[str, FiniteFloat]
    cost_per_token: NonNegativeFloat
    decisive_rate: Annotated[float, Field(ge=0, le=1)]
    contrast_rate: Annotated[float, Field(ge=0, le=1)]

    @field_validator("utility")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        return check_components(value, "verifier")


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
    match config.source:
        case "annotator":
            pairs = ask_annotator(config, stage)
        case "dataset":
            pairs = [row | {"gap": None} for row in read_table(stage.dep("data/prepared/preferences.parquet"))]
            if not pairs:
                raise InputError("collect_preferences.source is dataset, but prepare_data.sources names no preferences")
        case other:
            raise InputError(f"params.yaml: `collect_preferences.source` is {other!r}; it must be annotator or dataset")
    held_out = sum(row["split"] == "test" for row in pairs)
    stage.record(pairs=len(pairs), test_pairs=held_out)
    if config.source == "annotator":
        stage.record(flip_rate=sum(row["gap"] < 0 for row in pairs) / len(pairs))
    write_table(stage.out("data/preferences.parquet"), pairs)
    write_table(stage.out("data/feedback.parquet"), [], ["id", "prompt", "completion", "kind", "value", "annotator", "split"])
    stage.table("preferences", pairs[:50])
    stage.report("reports/collect_preferences")


def ask_annotator(config: CollectPreferencesConfig, stage: Stage) -> list[Row]:
    task = stage.params(TaskConfig)
    functions = stage.params(FunctionsConfig)
    policy, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    prompts = [row for row in read_table(stage.dep("data/prepared/prompts.parquet")) if row["split"] == "train"]
    prompts = prompts[: config.num_prompts]
    held_out = {row["prompt"] for row in prompts[: config.held_out_prompts]}
    if "verifier" in config.utility and any(row["answer"] is None for row in prompts):
        raise InputError(
            "collect_preferences.utility names the verifier, which needs prompts with an answer; "
            "name functions of the text instead, or set collect_preferences.source to dataset"
        )
    annotator = Annotator(config, functions, task.verifier)
    pieces = [prompts[i : i + PROMPTS_AT_ONCE] for i in range(0, len(prompts), PROMPTS_AT_ONCE)]
    pairs: list[Row] = []
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
            shown = [i for i in range(begin, begin + config.samples_per_prompt) if readable[i]]
            candidates = [annotator(texts[i], lengths[i], row) for i in shown]
            split = "test" if row["prompt"] in held_out else "train"
            for better, worse in questions(row, candidates, tokenizer, annotator, config, stage.seed):
                pairs.append(ask(row, better, worse, split, len(pairs), config, stage.seed))
    if not pairs:
        raise InputError("no two samples differ in utility: nothing to ask; raise samples_per_prompt or the temperature")
    stage.record(unreadable_samples=unreadable)
    return pairs


@dataclass(frozen=True)
class Annotator:
    """What is thought of a text, before any noise."""

    config: CollectPreferencesConfig
    functions: FunctionsConfig
    verifier: str

    def __call__(self, text: str, num_tokens: int, row: Row) -> Candidate:
        weights = self.config.utility
        components = {name: FUNCTIONS[name](text, self.functions) for name in weights if name in FUNCTIONS}
        if "verifier" in weights:
            components["verifier"] = float(bool(is_correct(text, row["answer"], self.verifier)))
        return Candidate(text, utility(components, weights, num_tokens, self.config.cost_per_token))


def questions(
    row: Row, candidates: list[Candidate], tokenizer: Any, annotator: Annotator, config: CollectPreferencesConfig, seed: int
) -> list[tuple[Candidate, Candidate]]:
    """The pairs (better, worse) to ask about for one prompt."""
    chance = seeds.stream(seed, "questions", row["id"])
    contrast = "verifier" in config.utility and row["solution"] and row["mistake"] and chance.random() < config.contrast_rate
    if not contrast:
        return choose_pairs(candidates, config.pairs_per_prompt, config.decisive_rate, chance)

    def written(text: str) -> Candidate:
        return annotator(text, len(encode_completion(tokenizer, text)), row)

    mistake = written(row["mistake"])
    best = max(candidates, key=lambda candidate: candidate.utility, default=None)
    right = best if best and best.utility - mistake.utility > DECISIVE else written(row["solution"])
    others = choose_pairs(candidates, config.pairs_per_prompt - 1, 0.0, chance)
    return [*others, (right, mistake)]


def ask(
    row: Row, better: Candidate, worse: Candidate, split: str, number: int, config: CollectPreferencesConfig, seed: int
) -> Row:
    chance = seeds.stream(seed, "answer", number)
    agrees = prefers_first(better, worse, config.bradley_terry_temperature, chance)
    chosen, rejected = (better, worse) if agrees else (worse, better)
    return {
        "id": f"{row['id']}-{number}",
        "prompt": row["prompt"],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "split": split,
        "gap": round(chosen.utility - rejected.utility, 6),
    }


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
