"""Where `make ui` shows the runs. MLflow opens for GenAI, where there is nothing to see; these links choose the other view."""

import sys

from tasks.core.errors import InputError
from tasks.core.mlflow_client import connect, experiment_id

TRAINING = "workflowType=machine_learning"  # the view for model training


def main() -> None:
    try:
        number = experiment_id(connect())
    except InputError as error:
        sys.exit(str(error))
    print(f"""\
runs      http://127.0.0.1:5000/#/experiments/{number}/runs?{TRAINING}
models    http://127.0.0.1:5000/#/models?{TRAINING}
Ctrl-C ends it.""")


if __name__ == "__main__":
    main()
