"""What happened, told to MLflow. With operations.py, registry.py and serving.py the only file that imports mlflow.

A tracking server that goes away never stops training and loses nothing: what cannot be sent is spooled below
.scratch/spool and sent by the next tracker that reaches the server. A server that does not answer at the start is refused:
a stage without a run id could never be found again.
"""

import fcntl
import getpass
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import InputError
from tasks.core.files import digest, files_of
from tasks.core.operations import Operation, perform

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "realign"
ABOUT = (  # the experiment's description
    "Runs with the tag `flow` are pipelines (`align`, `compare`, `rerun`): their names say what changed, their descriptions "
    "hold the results. Below each are the stages that ran. The registered models `policy` and `prompt_oirl` have a champion."
)
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"  # in the project's folder
SPOOL = Path(".scratch/spool")
PIPELINE_RUN_ID = "REALIGN_PIPELINE_RUN_ID"  # set by the flow for the stages it starts
SECONDS_BETWEEN_SENDS = 2.0
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")  # MLflow refuses the whole batch for one such name
UPLOAD_LIMIT = 64 * 2**20  # bytes; larger outputs are pointers to what DVC stores

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


def address(experiment_id: str, page: str = "runs") -> str:
    """Of a page of the experiment in MLflow's UI, which without a server is what `make ui` shows."""
    uri = tracking_uri()
    served = uri if uri.startswith("http") else "make ui, then http://127.0.0.1:5000"
    return f"{served}/#/experiments/{experiment_id}/{page}"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the sqlite file beside the project's dvc.yaml."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project() / DATABASE}"


class Tracker:
    """One MLflow run: a stage's, or the flow's."""

    def __init__(
        self, name: str, tags: dict[str, str], params: dict[str, Any], resume: str | None = None, began: float | None = None
    ):
        """Open a run, or continue run `resume`. Inside a flow the run becomes a child of the pipeline run.

        began: when the work began, in seconds since the epoch, if that was before now.
        """
        self.client = connect()
        self.pipeline_run_id = os.environ.get(PIPELINE_RUN_ID)
        tags = tags | {"mlflow.user": _user()}
        if self.pipeline_run_id:
            tags = tags | {"mlflow.parentRunId": self.pipeline_run_id}
        self.experiment_id = experiment_id(self.client)
        start = int(1000 * (began or time.time()))
        self.run_id = resume or self.client.create_run(self.experiment_id, start, tags, name).info.run_id
        self._buffer: list[tuple[str, float, int, int]] = []
        self._sent_at = time.monotonic()
        self._offline_until = 0.0
        self._logged_tables: list[dict[str, str]] = []
        drain(self.client)
        self._already_logged = self._last_step() if resume else -1
        if resume:
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            self._do({"do": "params", "values": {key: str(value) for key, value in params.items()}})

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Points of a step, or final figures (no step). A resumed run repeats the steps after its checkpoint: those that
        MLflow has already are left out."""
        if step is not None and step <= self._already_logged:
            return
        now = int(time.time() * 1000)
        named = {NOT_IN_NAMES.sub("_", key): float(value) for key, value in values.items()}
        self._buffer += [(key, value, now, step or 0) for key, value in named.items()]
        if time.monotonic() - self._sent_at > SECONDS_BETWEEN_SENDS:
            self.send()

    def send(self) -> None:
        for begin in range(0, len(self._buffer), 1000):  # MLflow's limit for one batch
            self._do({"do": "metrics", "points": self._buffer[begin : begin + 1000]})
        self._buffer = []
        self._sent_at = time.monotonic()

    def tag(self, key: str, value: str) -> None:
        self._do({"do": "tags", "values": {key.replace("@", "."): value}})  # MLflow refuses "@" in a key

    def describe(self, name: str, note: str) -> None:
        """Rename the run, and give its page a description in Markdown."""
        self.tag("mlflow.runName", name)
        self.tag("mlflow.note.content", note)

    def input(self, path: str, md5: str) -> None:
        """A dependency of the stage by content: the models that lie there, or else a data set."""
        models = [file.parent for file in Path(path).rglob("config.json")] if path.startswith("models/") else []
        for folder in models:
            self._do({"do": "reads", "digest": md5 if folder == Path(path) else digest(folder)})
        if not models:
            self._do({"do": "input", "name": path, "digest": md5})

    def file(self, path: Path, folder: str = "") -> None:
        """A small file or folder is uploaded; a large one becomes a pointer to what DVC stores."""
        size = sum(file.stat().st_size for file in files_of(path))
        if size > UPLOAD_LIMIT:
            pointer = {"path": str(path), "md5": digest(path), "bytes": size, "fetch": f"dvc pull {path}"}
            self.text(json.dumps(pointer, indent=1), f"{folder}/{path.name}.pointer.json".lstrip("/"))
        else:
            self._do({"do": "file", "path": str(path), "folder": folder})

    def text(self, text: str, name: str) -> None:
        self._do({"do": "text", "text": text, "name": name})

    def table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Rows as a table of the run's page in MLflow."""
        columns = list(rows[0]) if rows else []
        body = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
        self.text(json.dumps(body, ensure_ascii=False), f"{name}.json")
        entry = {"path": f"{name}.json", "type": "table"}
        if entry in self._logged_tables:
            return
        self._logged_tables.append(entry)
        self.tag("mlflow.loggedArtifacts", json.dumps(self._logged_tables))

    def model(self, folder: Path, md5: str) -> None:
        """A model that this run has made: a LoggedModel of MLflow. A large one is a pointer to what DVC stores."""
        size = sum(file.stat().st_size for file in files_of(folder))
        tags = {"md5": md5, "path": str(folder), "bytes": str(size), "fetch": f"dvc pull {folder}"}
        name = "-".join(folder.parts[1:])  # policy-ppo-0 of models/policy/ppo-0
        operation = {"do": "model", "name": name, "tags": tags}
        self._do(operation | {"path": str(folder)} if size <= UPLOAD_LIMIT else operation)

    def served(self, name: str, folder: Path, tags: dict[str, str], aliases: list[str]) -> None:
        """A model of tasks/core/serving.py, as a version of the registered model `name`."""
        self._do({"do": "file", "path": str(folder), "folder": name})
        self._do({"do": "register", "name": name, "tags": tags, "aliases": aliases})

    def finish(self, status: str) -> None:
        """status: FINISHED, FAILED or KILLED."""
        self.send()
        self._do({"do": "status", "status": status})
        spooled = project() / SPOOL / f"{self.run_id}.jsonl"
        if spooled.exists():
            print(f"the tracking server is away: {spooled} is sent when it answers again", file=sys.stderr)

    def _last_step(self) -> int:
        run = self.client.get_run(self.run_id)
        histories = [self.client.get_metric_history(self.run_id, key) for key in run.data.metrics if "/" in key]
        return max((point.step for history in histories for point in history), default=-1)

    def _do(self, operation: Operation) -> None:
        if time.monotonic() > self._offline_until:
            try:
                drain(self.client)
                _attempt(self.client, self.run_id, operation)
                return
            except Exception as error:  # any failure of the tracker is a reason to spool, never to stop training
                print(f"tracking server: {short(error)}; spooling to {SPOOL}", file=sys.stderr)
                self._offline_until = time.monotonic() + 10
        _spool(self.run_id, operation)


def connect() -> "MlflowClient":
    """A client whose server answers; the sqlite file is created by one process at a time."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout may be a pipe whose reader is dead
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    uri = tracking_uri()
    try:
        with _locked(project() / ".scratch/mlflow.lock"):
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


def follow_move() -> None:
    """MLflow's database names its artifacts by absolute paths: in a checkout that was moved or copied, name those of here."""
    database, here = project() / DATABASE, (project() / ARTIFACTS).as_uri()
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        kept = connection.execute("SELECT artifact_location FROM experiments") if "experiments" in tables else ()
        for (there,) in [*kept]:
            if there == here or not str(there).startswith("file:") or not str(there).endswith(f"/{ARTIFACTS}"):
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


def conclude(run_id: str, metrics: dict[str, float], note: str) -> None:
    """Figures that were found after a run had ended, and a description with them. One that MLflow does not know stays so."""
    if known(run_id):
        client, now = connect(), int(time.time() * 1000)
        points = [(NOT_IN_NAMES.sub("_", key), value, now, 0) for key, value in metrics.items()]
        perform(client, run_id, {"do": "metrics", "points": points})
        perform(client, run_id, {"do": "tags", "values": {"mlflow.note.content": note}})


def mark(run_id: str, status: str) -> None:
    """End a run whose own process could not: it was killed. One that MLflow no longer knows needs no mark."""
    client = connect()
    if known(run_id) and client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, status)


def known(run_id: str) -> bool:
    """False for a run of another server, or of a database that was removed."""
    from mlflow.exceptions import MlflowException

    try:
        connect().get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def short(error: Exception) -> str:
    """The first line of what an error of somebody else says."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


@dataclass(frozen=True)
class Recorded:
    """A run as MLflow remembers it."""

    run_id: str
    name: str
    tags: dict[str, str]
    metrics: dict[str, float]


def recorded(prefix: str) -> list[Recorded]:
    """The runs whose id begins so; none for what could not begin an id."""
    if not re.fullmatch("[0-9a-f]{4,32}", prefix):
        return []
    client = connect()
    found = client.search_runs([experiment_id(client)], f"attributes.run_id LIKE '{prefix}%'")
    return [Recorded(run.info.run_id, run.info.run_name or "", run.data.tags, run.data.metrics) for run in found]


def read_text(run_id: str, name: str) -> str | None:
    """A text among the artifacts of a run, byte for byte as it was kept; None if there is none of that name."""
    client = connect()
    if not known(run_id) or name not in [artifact.path for artifact in client.list_artifacts(run_id)]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes().decode("utf-8", "surrogateescape")


def drain(client: "MlflowClient") -> None:
    """Send what earlier trackers had to spool."""
    for file in sorted((project() / SPOOL).glob("*.jsonl")):
        with _locked(file.with_suffix(".lock")):
            if not file.exists():
                continue
            for line in file.read_text(encoding="utf-8").splitlines():
                _attempt(client, file.stem, json.loads(line))
            file.unlink()
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)


def experiment_id(client: "MlflowClient") -> str:
    """Of the experiment that all runs are in; made where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    folder = (project() / ARTIFACTS).as_uri() if tracking_uri().startswith("sqlite:") else None
    return str(client.create_experiment(name, folder, {"mlflow.note.content": ABOUT}))


def _attempt(client: "MlflowClient", run_id: str, operation: Operation) -> None:
    """What the server refuses for good is dropped with a line: sent again it would be refused again, and block the rest."""
    from mlflow.exceptions import MlflowException

    try:
        perform(client, run_id, operation)
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            raise
        print(f"tracking server: {short(error)}; left out", file=sys.stderr)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


def _spool(run_id: str, operation: Operation) -> None:
    """Keep an operation for later; files are copied, since the stage may remove them."""
    spool = project() / SPOOL
    spool.mkdir(parents=True, exist_ok=True)
    if "path" in operation:
        source = Path(operation["path"])
        kept = spool / run_id / str(time.monotonic_ns()) / source.name
        kept.parent.mkdir(parents=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, kept)
        operation = operation | {"path": str(kept)}
    with _locked(spool / f"{run_id}.lock"), (spool / f"{run_id}.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(operation) + "\n")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A kernel lock: it vanishes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
