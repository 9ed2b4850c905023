"""Feedback collection: samples of the SFT model judged by simulated annotators or by an AI judge, or what a data set holds.

`source` says who judges, `kind` what he is asked; tasks/feedback/simulated.py and tasks/feedback/rlaif.py say how. What the
annotator values says `utility`, by the names of tasks/rewards/functions.py and `verifier`; only the latter needs answers.

Writes data/preferences.parquet: id, prompt, chosen, rejected, split (train | test), gap (true utility of chosen − rejected;
null where nobody knows it). For every kind these are the pairs it implies. And data/feedback.parquet, one row per completion
that was ranked, rated or given a thumb: id (of the question; completions judged together share it), prompt, completion, kind
(ranking | rating | thumbs), value (the rank, 1 for the best, ties share one; the rating; 1 or 0), annotator, split. Pairs and
corrections leave it empty.

Metrics
  pairs, test_pairs    all, and those held out to measure the reward model
  judged               rows of data/feedback.parquet
  degenerate_pairs     left out: both sides are one text to a model, for space or beyond `task.max_new_tokens`
  flip_rate            share of pairs whose chosen side is worse; 1 − flip_rate bounds any reward model's accuracy
  annotator_agreement  how often two of the simulated annotators would agree
  unreadable_samples   shown to nobody: blank, or too long once written down as text (cut off, or broken bytes)
  and those of the judge, in tasks/feedback/rlaif.py
"""

from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import Row, read_table, write_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.implied import COLUMNS, implied_pairs
from tasks.feedback.judge import make_judge
from tasks.feedback.judge_texts import JudgeTextsConfig
from tasks.feedback.rlaif import choose_questions, judge_pairs
from tasks.feedback.samples import load_questions, refuse_unanswered, sample_completions
from tasks.feedback.settings import CollectPreferencesConfig, JudgeConfig
from tasks.feedback.simulated import Truth, agreement, compare, correct, judge_each, make_crowd
from tasks.models.language import open_model
from tasks.models.text import TaskConfig, tell_apart
from tasks.models.tokenizer import load_tokenizer
from tasks.rewards.functions import FunctionsConfig


@dataclass
class Collected:
    """costs: figures that depend on which answers were known before. tables: rows to look at."""

    pairs: list[Row]
    feedback: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    sft = stage.dep("models/sft")
    tokenizer = load_tokenizer(sft)
    match config.source:
        case "annotator":
            collected = ask_annotators(config, task, sft, stage)
        case "judge":
            collected = ask_judge(config, task, sft, stage)
        case "dataset":
            collected = read_data_set(config, stage)
        case other:
            raise InputError(f"params.yaml: `collect_preferences.source` is {other!r}; it must be annotator, judge or dataset")
    differ = tell_apart(tokenizer, collected.pairs, task.max_new_tokens)
    pairs = [row for row, is_pair in zip(collected.pairs, differ, strict=True) if is_pair]
    if not pairs:
        raise InputError("no pair is left: both sides of each are one text to a model; raise task.max_new_tokens")
    held_out = sum(row["split"] == "test" for row in pairs)
    stage.record(pairs=len(pairs), test_pairs=held_out, judged=len(collected.feedback), degenerate_pairs=differ.count(False))
    stage.record(**collected.figures)
    gaps = [row["gap"] for row in pairs]
    if None not in gaps:
        stage.record(flip_rate=sum(gap < 0 for gap in gaps) / len(gaps))
    write_table(stage.out("data/preferences.parquet"), pairs)
    feedback = [{column: row[column] for column in COLUMNS} for row in collected.feedback]
    write_table(stage.out("data/feedback.parquet"), feedback, COLUMNS, numbers=("value",))
    stage.table("preferences", pairs[:50])
    stage.table("feedback", feedback[:50])
    stage.report("reports/collect_preferences", collected.tables)
    stage.record(**collected.costs)  # after the report: a rerun pays less, and its outputs must be the same


def ask_annotators(config: CollectPreferencesConfig, task: TaskConfig, sft: Path, stage: Stage) -> Collected:
    prompts = load_questions(config, stage)
    refuse_unanswered(prompts, config)
    truth = Truth(config, stage.params(FunctionsConfig), task.verifier)
    policy, tokenizer = open_model(stage, sft)
    crowd = make_crowd(config, truth, tokenizer, stage.seed)
    sampled, unreadable = sample_completions(prompts, policy, tokenizer, task, config, stage)
    shown = [(row, split, [truth(text, length, row) for text, length in texts]) for row, split, texts in sampled]
    figures = {"unreadable_samples": unreadable, "annotator_agreement": agreement(shown, crowd)}
    judged: list[Row] = []
    match config.kind:
        case "pairwise":
            pairs = compare(shown, crowd)
        case "correction":
            pairs = correct(shown, crowd)
        case _:
            judged = judge_each(shown, crowd)
            pairs = implied_pairs(judged)
    if not pairs:
        raise InputError("no two samples differ in utility: nothing to ask; raise samples_per_prompt or the temperature")
    return Collected(pairs, judged, figures)


def ask_judge(config: CollectPreferencesConfig, task: TaskConfig, sft: Path, stage: Stage) -> Collected:
    texts = JudgeTextsConfig.load(stage.dep(config.judge.templates))
    prompts = load_questions(config, stage)
    truth = Truth(config, stage.params(FunctionsConfig), task.verifier)
    policy, tokenizer = open_model(stage, sft)
    judge = make_judge(config.judge, texts, own_judge(config.judge, sft, stage), stage.device, stage.seed)
    is_known = "verifier" not in config.utility or all(row["answer"] is not None for row in prompts)
    crowd = make_crowd(config, truth, tokenizer, stage.seed) if is_known else None
    sampled, unreadable = sample_completions(prompts, policy, tokenizer, task, config, stage)
    asked = choose_questions(sampled, crowd, config.pairs_per_prompt, stage.seed)
    pairs, figures, judgements = judge_pairs(
        asked, judge, is_known, config.judge.repeat_rate, stage.seed, f"{stage.name}: judge"
    )
    costs: dict[str, float] = {"judge/calls": judge.calls, "judge/from_cache": judge.from_cache}
    return Collected(pairs, [], figures | {"unreadable_samples": unreadable}, costs, {"judgements": judgements})


def own_judge(config: JudgeConfig, sft: Path, stage: Stage) -> Path | None:
    """The folder of a judge that is a model of this pipeline."""
    if config.model != "judge_model":
        return sft if config.model == "sft" else None
    folder = stage.dep("models/judge_model")
    if not (folder / "config.json").exists():
        raise InputError("collect_preferences.judge.model is judge_model, which was not trained: raise judge_model.num_steps")
    return folder


def read_data_set(config: CollectPreferencesConfig, stage: Stage) -> Collected:
    if config.kind in ("pairwise", "correction"):
        pairs = [row | {"gap": None} for row in read_table(stage.dep("data/prepared/preferences.parquet"))]
        judged: list[Row] = []
    else:
        rows = read_table(stage.dep("data/prepared/feedback.parquet"))
        judged = [row for row in rows if row["kind"] == config.kind]
        pairs = implied_pairs(judged) if judged else []
    if not pairs:
        what = {"pairwise": "preferences", "correction": "preferences"}.get(config.kind, f"feedback of kind {config.kind}")
        raise InputError(f"collect_preferences.source is dataset, but prepare_data.sources names no {what}")
    return Collected(pairs, judged)


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
