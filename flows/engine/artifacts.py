"""What a flow leaves on its page in Prefect, where a server keeps it: plan, progress, results and links; and in its log."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.engine.api import has_server
from flows.engine.console import METRICS, PAGE, Outcome
from flows.engine.headline import note
from flows.engine.plan import Step
from tasks.core.config import flatten
from tasks.core.files import read_json


def show_plan(steps: Iterable[Step]) -> UUID | None:
    """The plan, and a progress bar, whose id it returns. Without a server there is nobody to see them."""
    if not has_server():
        return None
    rows = [{"stage": step.name, "will": step.action, "why": step.why} for step in steps]
    create_table_artifact(rows, key="plan", description="what DVC says of each stage, and why")
    logger = get_run_logger()
    for row in rows:
        logger.info("plan: %(stage)s: %(will)s %(why)s", row)
    made = create_progress_artifact(0.0, key="progress", description="stages that are done")
    return made if isinstance(made, UUID) else None


def show_progress(bar: UUID | None, done: int, total: int) -> None:
    if bar:
        update_progress_artifact(bar, 100 * done / total)


def show_results(outcomes: Sequence[Outcome], gate: str, run: str) -> None:
    """gate: what it said of the best policy; run: the address of the run in MLflow."""
    if not has_server():
        return
    logger = get_run_logger()
    for outcome in outcomes:
        logger.info("%s: %s in %.1f s %s", outcome.name, outcome.state, outcome.seconds, outcome.why)
    rows = [{"stage": one.name, "state": one.state, "why": one.why, "run_id": ""} for one in outcomes]
    evaluated = any(one.name == "evaluate" and one.state in ("ran", "cached", "restored") for one in outcomes)
    metrics = {"evaluate": flatten(read_json(METRICS))} if evaluated else {}
    create_markdown_artifact(f"{note(rows, metrics, gate, '')}\n\nThe report is {PAGE}.", key="results")
    create_link_artifact(run, key="mlflow", link_text="the run in MLflow")
    logger.info("in MLflow: %s", run)
