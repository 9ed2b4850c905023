"""MLflow's server for this checkout: `make server` and `make ui` start it.

    python -m tasks.core.tracking_server <port>

The database names artifacts by their paths on this machine, which is what processes without a server need. A client of the
server may be on another machine: it is told that the server keeps them (`mlflow-artifacts:`), so it sends and fetches them
through the server, older ones too. MLflow refuses web pages of other origins, and other host names than those of this machine.
"""

import os
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from tasks.core.errors import InputError
from tasks.core.mlflow_client import ARTIFACTS, DATABASE, connect, project

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def main(port: int) -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # this is the server that others name so
    try:
        connect()  # makes the database, or refuses it
    except InputError as error:
        sys.exit(str(error))
    kept = (project() / ARTIFACTS).as_uri()
    os.environ |= {  # what `mlflow server` tells the processes that it starts
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{project() / DATABASE}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": kept,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": kept,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for what nothing here uses
    }
    import uvicorn
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    pages.wsgi_app = through_server(pages.wsgi_app, kept)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def through_server(wsgi: Wsgi, kept: str) -> Wsgi:
    """The API, in whose JSON the addresses of artifacts begin with `mlflow-artifacts:` instead of `kept`."""
    from werkzeug.wrappers import Response

    inside, outside = f'"{kept}/'.encode(), b'"mlflow-artifacts:/'

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "/mlflow/" not in environ["PATH_INFO"]:
            return wsgi(environ, start_response)
        said = environ["wsgi.input"].read().replace(outside, inside)
        response = Response.from_app(wsgi, environ | {"wsgi.input": BytesIO(said), "CONTENT_LENGTH": str(len(said))})
        if response.is_json:
            response.set_data(response.get_data().replace(inside, outside))
        return response(environ, start_response)

    return app


if __name__ == "__main__":
    main(int(sys.argv[1]))
