"""A rerun in MLflow: what it repeats, and the verdict."""

import dataclasses
from typing import Any, Literal

from flows.engine.rerun.record import Record
from flows.engine.rerun.verdict import Verdict, Word
from tasks.core.tracking import Tracker


class RerunRun:
    """The rerun's own run. The pipeline run that it makes is its child."""

    def __init__(self, record: Record, asked: dict[str, Any]) -> None:
        self._record = record
        tags = {
            "flow": "rerun",
            "rerun.of": record.id,
            "mlflow.source.name": "python -m flows.rerun",
            "mlflow.source.git.commit": record.commit,
            "git.dirty": str(bool(record.patch)).lower(),
        }
        self._tracker = Tracker(f"rerun: {record.name}", tags, asked)
        self.run_id = self._tracker.run_id

    def conclude(self, verdicts: list[Verdict], word: Word, sentence: str) -> None:
        rows = [dataclasses.asdict(one) for one in verdicts]
        for row in rows:  # a drift may be infinite, which JSON cannot say
            row |= {"differs": ", ".join(row["differs"]), "drift": "" if row["drift"] is None else f"{row['drift']:.3g}"}
        self._tracker.table(rows, "verdict")
        self._tracker.tag("verdict", word)
        self._tracker.describe(f"rerun: {self._record.name}: {word}", self._note(verdicts, sentence))
        self._tracker.finish("FAILED" if word == "failed" else "FINISHED")

    def end(self, status: Literal["FAILED", "KILLED"], why: str) -> None:
        """Without a verdict."""
        self._tracker.tag("mlflow.note.content", why)
        self._tracker.finish(status)

    def _note(self, verdicts: list[Verdict], sentence: str) -> str:
        link = f"[{self._record.name}](#/experiments/{self._tracker.experiment_id}/runs/{self._record.run_id})"
        lines = [
            f"Of {link if self._record.run_id else self._record.name}. {sentence}",
            "",
            "| stage | verdict | why |",
            "|---|---|---|",
        ]
        return "\n".join([*lines, *(f"| {one.stage} | {one.word} | {one.why} |" for one in verdicts)])
