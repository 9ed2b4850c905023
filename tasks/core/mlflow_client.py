"""Where MLflow keeps the runs: a server, or the database beside the project's dvc.yaml.

Nothing outside of tasks/core imports mlflow.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "realign"
ABOUT = (  # the experiment's description
    "Runs with the tag `flow` are pipelines (`align`, `compare`, `rerun`): their names say what changed, their descriptions "
    "hold the results. Below each are the stages that ran. Of the registered models, `policy` has the alias champion, "
    "`prompt_oirl` the alias newest."
)
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"  # in the project's folder

PLACES = {  # columns of MLflow's database that hold absolute addresses of artifacts
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "model_versions": ["source", "storage_location"],
    "logged_models": ["artifact_location"],
}


def project() -> Path:
    """The checkout that the user works in: this folder, or the one in which DVC or a flow has made this copy for a while."""
    here = Path.cwd()
    for folder in reversed(here.parents):
        inside = here.relative_to(folder).parts
        if (inside[0] == ".scratch" or inside[:2] == (".dvc", "tmp")) and (folder / "dvc.yaml").exists():
            return folder
    return here


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the sqlite file beside the project's dvc.yaml."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project() / DATABASE}"


def address(experiment_id: str, page: str = "runs") -> str:
    """Of a page of the experiment in MLflow's UI, which without a server is what `make ui` shows."""
    uri = tracking_uri()
    served = uri if uri.startswith("http") else "make ui, then http://127.0.0.1:5000"
    return f"{served}/#/experiments/{experiment_id}/{page}"


def connect() -> "MlflowClient":
    """A client whose server answers; the sqlite file is created by one process at a time."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout may be a pipe whose reader is dead
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    uri = tracking_uri()
    try:
        with locked(project() / ".scratch/mlflow.lock"):
            if uri.startswith("sqlite:"):
                follow_move()
            client = MlflowClient(tracking_uri=uri)
            experiment_id(client)
    except Exception as error:
        if uri.startswith("sqlite:"):
            raise InputError(
                f"{uri.removeprefix('sqlite:///')} cannot be used as MLflow's database ({short(error)}); "
                "if it is damaged, move it away: the next run begins a new one"
            ) from None
        raise InputError(
            f"the tracking server {uri} does not answer ({short(error)}); "
            "start it, or unset MLFLOW_TRACKING_URI to use mlflow.db"
        ) from None
    return client


def experiment_id(client: "MlflowClient") -> str:
    """Of the experiment that all runs are in; made where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    folder = (project() / ARTIFACTS).as_uri() if tracking_uri().startswith("sqlite:") else None
    return str(client.create_experiment(name, folder, {"mlflow.note.content": ABOUT}))


def follow_move() -> None:
    """MLflow's database names its artifacts by absolute paths: in a checkout that was moved or copied, name those of here."""
    database, here = project() / DATABASE, (project() / ARTIFACTS).as_uri()
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        kept = connection.execute("SELECT artifact_location FROM experiments") if "experiments" in tables else ()
        for there in {re.sub(r"/\d+$", "", location) for (location,) in kept}:  # a server adds the experiment's number
            if there == here or not there.startswith("file:") or not there.endswith(f"/{ARTIFACTS}"):
                continue
            for table, columns in PLACES.items():
                for column in columns:
                    moved = f"{column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"
                    values = (here, len(there) + 1, there, len(there) + 1, f"{there}/")
                    connection.execute(f"UPDATE {table} SET {moved}", values)


def warm_up() -> None:
    """Import what MLflow imports when a client is first used: for a process that has the time now and not later."""
    import mlflow

    if tracking_uri().startswith("sqlite:"):
        import alembic.command  # noqa: F401
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def short(error: Exception) -> str:
    """The first line of what an error of somebody else says."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A kernel lock: it vanishes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
