"""What a tracker can tell MLflow, each as a dictionary that can be kept in a file and sent later.

Sent twice, each leaves what it leaves when sent once: a server may have gone away between the deed and its answer.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

Operation = dict[str, Any]
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")  # MLflow refuses the whole batch for one such name


def metric_name(name: str) -> str:
    """As MLflow takes it."""
    return NOT_IN_NAMES.sub("_", name)


def perform(client: "MlflowClient", run_id: str, operation: Operation) -> None:
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    match operation["do"]:
        case "params":
            params = [Param(key, value) for key, value in operation["values"].items()]
            for begin in range(0, len(params), 100):  # MLflow's limit for one batch
                client.log_batch(run_id, params=params[begin : begin + 100])
        case "metrics":
            client.log_batch(run_id, metrics=[Metric(*point) for point in operation["points"]])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in operation["values"].items()])
        case "input":
            dataset = Dataset(operation["name"], operation["digest"], "dvc", json.dumps({"path": operation["name"]}))
            client.log_inputs(run_id, [DatasetInput(dataset)])
        case "reads":
            _link_models(client, run_id, operation["digest"])
        case "model":
            _log_model(client, run_id, operation["name"], operation["tags"], operation.get("path"))
        case "file":
            path = Path(operation["path"])
            folder = operation["folder"] or None
            if path.is_dir():
                client.log_artifacts(run_id, str(path), folder)
            else:
                client.log_artifact(run_id, str(path), folder)
        case "text":
            client.log_text(run_id, operation["text"], operation["name"])
        case "register":
            _register(client, run_id, operation["name"], operation["tags"], operation["aliases"])
        case "status":
            client.set_terminated(run_id, operation["status"])


def _register(client: "MlflowClient", run_id: str, name: str, tags: dict[str, str], aliases: list[str]) -> None:
    """One version per run, also if the stage was killed after it had registered one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = [version for version in client.search_model_versions(f"name='{name}'") if version.run_id == run_id]
    source = f"{client.get_run(run_id).info.artifact_uri}/{name}"
    version = found[0] if found else client.create_model_version(name, source, run_id, tags)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version.version)


def _log_model(client: "MlflowClient", run_id: str, name: str, tags: dict[str, str], folder: str | None) -> None:
    """One per run, also if the stage was killed after it had logged one. Its files lie where `serving.save_served` of the same
    folder puts them. folder: None for what is too large to be uploaded."""
    from mlflow.entities import LoggedModelOutput

    experiment, where = client.get_run(run_id).info.experiment_id, f"source_run_id = '{run_id}' AND name = '{name}'"
    found = client.search_logged_models([experiment], where)
    model = found[0] if found else client.create_logged_model(experiment, name, run_id, tags)
    if folder:
        client.log_model_artifacts(model.model_id, folder, f"artifacts/{Path(folder).name}")
    client.finalize_logged_model(model.model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def _link_models(client: "MlflowClient", run_id: str, digest: str) -> None:
    """The run reads the model of these bytes: the newest of them, if MLflow knows any."""
    from mlflow.entities import LoggedModelInput

    run = client.get_run(run_id)
    found = client.search_logged_models([run.info.experiment_id], f"tags.md5 = '{digest}'")
    linked = [each.model_id for each in (run.inputs.model_inputs if run.inputs else [])]
    if found and found[0].model_id not in linked:
        client.log_inputs(run_id, models=[LoggedModelInput(found[0].model_id)])
