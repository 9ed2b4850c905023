"""The registry of models in MLflow: versions under a name, and which of them is the champion.

Who was champion before is a tag of the name, the present one last: so a rollback knows where to go.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import InputError
from tasks.core.mlflow_client import connect, experiment_id, short, tracking_uri
from tasks.core.recorded_runs import known

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHAMPIONS = "champion", "champions"  # alias of a version; tag of the name
ROLLED_BACK = "rolled_back"  # tag of a version


@dataclass(frozen=True)
class Version:
    number: str
    tags: dict[str, str]


class Registry:
    """The versions of one name."""

    def __init__(self, name: str):
        self.name = name
        self._client = connect()

    def versions(self) -> list[Version]:
        return [_version(found) for found in self._client.search_model_versions(f"name='{self.name}'")]

    def version(self, number: str) -> Version:
        versions = {version.number: version for version in self.versions()}
        if number not in versions:
            there = f"there are {', '.join(sorted(versions, key=int))}" if versions else "a finished flow registers the first"
            raise InputError(f"the registry has no version {number} of {self.name}; {there}")
        return versions[number]

    def champion(self) -> Version | None:
        history = self._history()
        return self.version(history[-1]) if history else None

    def register(self, served: Path, run_id: str, tags: dict[str, str]) -> Version:
        """A version for these weights: the one that is there, or a new one.

        served: what `serving.save_served` wrote; it goes to the LoggedModel of the run that made the weights. tags: `md5` is of
        the weights, `model` their name.
        """
        for version in self.versions():
            if version.tags.get("md5") == tags["md5"]:
                self.tag(version, tags)
                return Version(version.number, version.tags | tags)
        experiment = experiment_id(self._client)
        models = self._client.search_logged_models([experiment], f"tags.md5 = '{tags['md5']}'")
        maker = run_id if known(run_id) else None
        name = f"{self.name}-{tags['model']}"
        model = models[0] if models else self._client.create_logged_model(experiment, name, maker, tags)
        self._client.log_model_artifacts(model.model_id, str(served))
        self._client.finalize_logged_model(model.model_id, "READY")
        if not self._client.search_registered_models(f"name='{self.name}'"):
            self._client.create_registered_model(self.name)
        source = f"models:/{model.model_id}"
        return _version(self._client.create_model_version(self.name, source, maker, tags, model_id=model.model_id))

    def tag(self, version: Version, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version.number, key, value)

    def describe(self, version: Version, text: str) -> None:
        self._client.update_model_version(self.name, version.number, text)

    def promote(self, version: Version) -> None:
        self._client.delete_model_version_tag(self.name, version.number, ROLLED_BACK)
        history = self._history()
        self._crown(history if history[-1:] == [version.number] else [*history, version.number])

    def roll_back(self) -> tuple[Version, Version]:
        """(the champion that was, the one that is again)."""
        *earlier, last = self._history() or [""]
        if not earlier:
            raise InputError(f"no version of {self.name} was champion before {f'version {last}' if last else 'now'}: stay")
        self.tag(self.version(last), {ROLLED_BACK: "true"})
        self._crown(earlier)
        return self.version(last), self.version(earlier[-1])

    def _history(self) -> list[str]:
        """Numbers of all champions. Whoever has set the alias by hand is believed."""
        for found in self._client.search_registered_models(f"name='{self.name}'"):
            history: list[str] = json.loads(found.tags.get(CHAMPIONS, "[]"))
            if CHAMPION in found.aliases and history[-1:] != [str(found.aliases[CHAMPION])]:
                history.append(str(found.aliases[CHAMPION]))
            return history
        return []

    def _crown(self, history: list[str]) -> None:
        self._client.set_registered_model_tag(self.name, CHAMPIONS, json.dumps(history))
        self._client.set_registered_model_alias(self.name, CHAMPION, history[-1])


def served_folder(uri: str, scratch: Path) -> tuple[str, Path]:
    """(models:/<name>/<version>, what `serving.save_served` was given as the folder) of a version by its URI, which may have an
    alias; its files are downloaded into `scratch`."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@(.+))", uri)
    if not match:
        raise InputError(f"{uri} names no version of a model; write models:/<name>/<version> or models:/<name>@<alias>")
    name, number, alias = match.groups()
    client = connect()
    try:
        number = number or str(client.get_model_version_by_alias(name, alias).version)
        source = client.get_model_version_download_uri(name, number)
        files = Path(download_artifacts(source, dst_path=str(scratch), tracking_uri=tracking_uri()))
    except MlflowException as error:
        raise InputError(f"{uri} cannot be read from MLflow's registry ({short(error)})") from None
    return f"models:/{name}/{number}", files / "artifacts" / name


def _version(found: "ModelVersion") -> Version:
    tags: dict[str, Any] = found.tags
    return Version(str(found.version), {key: str(value) for key, value in tags.items()})
