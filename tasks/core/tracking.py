"""What happened, told to MLflow while it happens.

A tracking server that goes away never stops training and loses nothing: what cannot be sent is spooled below
.scratch/spool and sent by the next tracker that reaches the server. A server that does not answer at the start is refused:
a stage without a run id could never be found again.
"""

import getpass
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import digest, files_of
from tasks.core.mlflow_client import connect, experiment_id, locked, project, short
from tasks.core.operations import Operation, metric_name, perform
from tasks.core.usage import Usage

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPOOL = Path(".scratch/spool")
PIPELINE_RUN_ID = "REALIGN_PIPELINE_RUN_ID"  # set by the flow for the stages it starts
SECONDS_BETWEEN_SENDS = 2.0
UPLOAD_LIMIT = 64 * 2**20  # bytes; larger outputs are pointers to what DVC stores


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
        self._usage = Usage()
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
        measured = self._usage.measure() if step is not None else {}
        named = {metric_name(key): float(value) for key, value in (values | measured).items()}
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
        began = time.monotonic()
        if began > self._offline_until:
            try:
                drain(self.client)
                _attempt(self.client, self.run_id, operation)
                return
            except Exception as error:  # any failure of the tracker is a reason to spool, never to stop training
                print(f"tracking server: {short(error)}; spooling to {SPOOL}", file=sys.stderr)
                now = time.monotonic()
                self._offline_until = now + max(10, 10 * (now - began))  # one that hangs costs a tenth of the time at most
        _spool(self.run_id, operation)


def drain(client: "MlflowClient") -> None:
    """Send what earlier trackers had to spool."""
    for file in sorted((project() / SPOOL).glob("*.jsonl")):
        with locked(file.with_suffix(".lock")):
            if not file.exists():
                continue
            for line in file.read_text(encoding="utf-8").splitlines():
                _attempt(client, file.stem, json.loads(line))
            file.unlink()
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)


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
    with locked(spool / f"{run_id}.lock"), (spool / f"{run_id}.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(operation) + "\n")
