"""Where `make ui` shows the runs: MLflow opens with another view, in which there is nothing to see."""

import sys

from tasks.core.errors import InputError
from tasks.core.mlflow_client import connect, experiment_id


def main() -> None:
    try:
        number = experiment_id(connect())
    except InputError as error:
        sys.exit(str(error))
    print(f"""\
runs      http://127.0.0.1:5000/#/experiments/{number}/runs
models    http://127.0.0.1:5000/#/models
Ctrl-C ends it.""")


if __name__ == "__main__":
    main()
