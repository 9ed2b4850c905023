"""What a source of feedback has collected, and how the stage collect_preferences publishes it.

`collect_preferences.source` names the folder whose collect.py runs: annotator, judge or dataset. `kind` says what is asked.
`utility` sets what the annotators value, by the names of tasks/rewards/functions.py and `verifier`; only the latter needs
answers. Each source has a folder of its own, so that an edit of one reruns nothing that uses another.

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
  and those of the judge, in tasks/feedback/judge/rlaif.py
"""

from dataclasses import dataclass, field

from tasks.core.errors import InputError
from tasks.core.files import Row, write_table
from tasks.core.stage import Stage
from tasks.feedback.implied import COLUMNS
from tasks.models.text import TaskConfig, tell_apart
from tasks.models.tokenizer import load_tokenizer


@dataclass
class Collected:
    """costs: figures that depend on which answers were known before. tables: rows to look at."""

    pairs: list[Row]
    feedback: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


def publish(collected: Collected, stage: Stage) -> None:
    """Write the tables and record the metrics. Pairs whose sides are one text to a model are left out."""
    max_new_tokens = stage.params(TaskConfig).max_new_tokens
    differ = tell_apart(load_tokenizer(stage.dep("models/sft")), collected.pairs, max_new_tokens)
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
