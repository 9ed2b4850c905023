"""Does an earlier flow come out the same? Its code, params and data are restored beside yours and everything runs again.

    python -m flows.rerun 3f2a9c                    a pipeline run in MLflow, by its id or the beginning of it
    python -m flows.rerun HEAD~3                    a commit, which must carry its dvc.lock
    python -m flows.rerun 3f2a9c --tolerance 0.01   outputs may differ where no metric changed by more than 1 %
    python -m flows.rerun 3f2a9c --until sft        only sft and what it needs

Stage by stage: identical, within tolerance (flows/engine/rerun/verdict.py says what that means) or different, and why. MLflow
keeps the verdict. Exit code 0: all identical. 3: within the tolerance. 4: different. 1: it could not be carried out.
The checkout is removed after "identical" and otherwise stays, to be looked at. Killed, it starts over when run again.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from rich.table import Table
from rich.text import Text

from flows.engine.api import follow_parent, prefect_api
from flows.engine.console import console
from flows.engine.environment import environment
from flows.engine.rerun.mlflow_run import RerunRun
from flows.engine.rerun.record import Record, look_up
from flows.engine.rerun.restore import claim, reproduce, reproduced, restore, stages_of
from flows.engine.rerun.verdict import Verdict, Word, conclude, judge, surroundings
from tasks.core.errors import InputError
from tasks.core.tracking import PIPELINE_RUN_ID

ROOM = Path(".scratch/rerun")
EXIT = {"Identical": 0, "Within tolerance": 3, "Different": 4}  # by the name of the flow's final state
STYLES = {"identical": "green", "within tolerance": "yellow"}


@flow(name="rerun", flow_run_name="rerun {of}")
def rerun(of: str, tolerance: float = 0.0, until: str | None = None) -> State:
    """Restore an earlier flow beside this checkout, run it again from nothing, and compare.

    Args:
        of: The id of a pipeline run in MLflow, or a commit that carries its dvc.lock.
        tolerance: Outputs may differ where no metric changed by more than this share. 0: the same bytes.
        until: Only this stage and what it needs. Empty: all stages.
    """
    follow_parent()
    try:
        if not 0 <= tolerance < math.inf:
            raise InputError(f"the tolerance is {tolerance}; it should be a share such as 0.01, or 0")
        record = look_up(of)
        folder = ROOM / record.id[:12]
        with claim(folder) as current:
            run = RerunRun(record, {"of": record.id, "tolerance": tolerance, "until": until})
            print(run.run_id, end="", file=current, flush=True)
            try:
                word, sentence = repeat(record, folder, tolerance, until, run)
            except InputError as error:
                run.end("FAILED", str(error))
                raise
            except BaseException:
                run.end("KILLED", "stopped before there was a verdict")
                raise
            finally:
                current.truncate(0)
    except InputError as error:
        return Failed(message=str(error))
    made = Completed if word in ("identical", "within tolerance") else Failed
    return made(name=word.capitalize(), message=sentence)


def repeat(record: Record, folder: Path, tolerance: float, until: str | None, run: RerunRun) -> tuple[Word, str]:
    """The verdict on the whole, and the sentence that says it."""
    print(f"rerun of {record.id}{' with its uncommitted changes' if record.patch else ''} in {folder}")
    restore(record, folder)
    stages = stages_of(folder, until)
    if not any(name in record.side.stages for name in stages):
        raise InputError(f"{record.name}: none of {', '.join(stages)} is on record, so there is nothing to compare with")
    said = reproduce(folder, until, {PIPELINE_RUN_ID: run.run_id}, show=print)
    now = reproduced(folder)
    failed = {name: why for name in stages if (why := failure(name, said))}
    if said and not now.stages and not failed:
        raise InputError(f"{said.splitlines()[-1]} (in {folder}, which holds no more than git and DVC keep)")
    here = environment()
    verdicts = judge(stages, record.side, now, tolerance, failed, lambda name: surroundings(record.environment(name), here))
    word, sentence = conclude(verdicts)
    run.conclude(verdicts, word, sentence)
    show_verdicts(verdicts)
    if word == "identical":
        shutil.rmtree(folder)
    else:
        sentence += f"; the checkout is kept in {folder}"
    if word != "failed":  # that one is for stderr
        print(sentence)
    return word, sentence


def failure(stage: str, said: str) -> str:
    """Why the stage failed, from the sentences with which the flow ended; nothing if it did not."""
    begin = f"{stage} failed: "
    return next((line.removeprefix(begin) for line in said.splitlines() if line.startswith(begin)), "")


def show_verdicts(verdicts: Iterable[Verdict]) -> None:
    table = Table("stage", "verdict", "differs", "why", title="verdict", title_justify="left", box=None, pad_edge=False)
    for one in verdicts:
        drift = f" (metrics by {one.drift:.2g})" if one.differs and one.drift is not None else ""
        differs = Text(f"{', '.join(one.differs)}{drift}")
        table.add_row(one.stage, Text(one.word, STYLES.get(one.word, "bold red")), differs, Text(one.why))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.rerun",
        description="Run an earlier flow again and compare its outputs, stage by stage.",
        epilog="exit code: 0 all identical, 3 within the tolerance, 4 different, 1 it could not be carried out",
    )
    parser.add_argument("of", metavar="RUN", help="id (or its beginning) of a pipeline run in MLflow, or a commit")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative change that metrics may show, such as 0.01")
    parser.add_argument("--until", metavar="STAGE", help="only this stage (or matrix) and what it needs")
    asked = parser.parse_args()
    follow_parent()
    try:
        look_up(asked.of)  # refused before Prefect's API starts
        with prefect_api(watched=True):
            state = rerun(**vars(asked), return_state=True)
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(EXIT.get(state.name or "", state.message or 1))


if __name__ == "__main__":
    main()
