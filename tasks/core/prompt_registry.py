"""Prompts in MLflow's registry: under each name numbered versions of a text, each with a URI, prompts:/<name>/<version>."""

import re
import sys
from typing import TYPE_CHECKING

from tasks.core.mlflow_client import short

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.-]")
SCHEME = "prompts:/"
MANY = 1000  # versions of a name that are looked through


def register_prompts(client: "MlflowClient", run_id: str, prefix: str, texts: dict[str, str]) -> dict[str, str]:
    """The URI of each text by its id, linked to the run: that of the version which has the text already, or of a new one.

    prefix: before the id in the name, since prompts and models share their names. An id that is a URI itself stays one. As with
    the rest of tracking, a server that is away stops nothing: then no prompt has a URI.
    """
    try:
        uris = {id: id if id.startswith(SCHEME) else _register(client, f"{prefix}.{id}", text) for id, text in texts.items()}
        for uri in uris.values():
            client.link_prompt_version_to_run(run_id, uri)
    except Exception as error:
        print(f"tracking server: {short(error)}; the prompts have no versions in its registry", file=sys.stderr)
        return {}
    return uris


def _register(client: "MlflowClient", name: str, text: str) -> str:
    from mlflow.exceptions import MlflowException

    name = NOT_IN_NAMES.sub("-", name)
    try:
        versions = client.search_prompt_versions(name, MANY)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        versions = []
    same = next((version for version in versions if version.template == text), None)
    return f"{SCHEME}{name}/{(same or client.register_prompt(name, text)).version}"
