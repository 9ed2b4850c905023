"""Feedback that a data set holds: nobody is asked."""

from tasks.core.errors import InputError
from tasks.core.files import Row, read_table
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.collected import Collected, publish
from tasks.feedback.implied import implied_pairs
from tasks.feedback.settings import CollectPreferencesConfig


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
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
    publish(Collected(pairs, judged), stage)


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
