"""The drift check of tasks/prompt_oirl/drift.py as a flow: on a schedule or from Prefect's UI, its verdict told to people.

    prefect deployment run drift/on-demand --param file=new.jsonl

By hand `python -m tasks.prompt_oirl.drift` does the same and needs no Prefect.
"""

import subprocess
import sys

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.engine.api import follow_parent
from flows.engine.notify import check_block, notify
from tasks.core.errors import InputError

DRIFTED = 3  # exit code of the command


@flow(name="drift", flow_run_name="drift of {file}")
def drift(file: str, model: str = "models:/prompt_oirl@newest") -> State:
    """Are new queries like those of the model's log, and do its chances come true?

    Args:
        file: The queries that came, and which answers were right; a path in the checkout of the worker.
        model: A version of prompt_oirl in MLflow's registry.
    """
    follow_parent()
    try:
        check_block()
    except InputError as error:
        return Failed(message=str(error))
    command = [sys.executable, "-m", "tasks.prompt_oirl.drift", "--model", model, "--", file]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stdout or done.stderr).strip()
    if done.returncode == 0:
        return Completed(message=said)
    if done.returncode == DRIFTED:
        notify("realign: the choice of prompts has drifted", said)
        return Failed(name="Drifted", message=said)
    notify("realign: the drift check failed", said)
    return Failed(message=said)
