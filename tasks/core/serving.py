"""Something that answers rows with rows, as an MLflow model: written by a stage, served by `mlflow models serve`.

Its code travels as text, nothing is pickled, and the package `tasks` goes along: the model needs no repository.
"""

import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tasks.core.errors import InputError
from tasks.core.files import Row

Answer: TypeAlias = Callable[[list[Row], dict[str, Any]], list[Row]]  # rows and params in, rows out


def save_served(
    path: Path,
    script: Path,
    folder: Path,
    example: tuple[list[Row], dict[str, Any], list[Row]],
    packages: list[str],
    prompts: Sequence[str] = (),
) -> None:
    """Write the model. script: a module that calls `serve`. folder: what it loads. packages: what it needs installed.
    example: rows, params, and the answer to them, from which the signature is taken. prompts: URIs of MLflow's prompt registry.
    """
    from mlflow.models import Model, infer_signature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import AnyType, ColSpec, Schema
    from pandas import DataFrame

    asked, params, answered = DataFrame(example[0]), example[1], DataFrame(example[2])
    signature = infer_signature(asked, answered, params)
    signature.inputs = Schema([ColSpec(AnyType(), name) for name in asked])  # of a text MLflow would make a null the text None
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it advises on type hints
    warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer column")  # none of ours is ever missing
    save_model(
        path,
        mlflow_model=Model(prompts=[*prompts] or None),
        python_model=str(script),
        artifacts={"folder": str(folder)},
        code_paths=[str(Path(__file__).parents[1])],
        signature=signature,
        input_example=(asked, params),
        pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in packages],
    )


def serve(load: Callable[[Path], Answer]) -> None:
    """What the script of a model calls: the model is load(folder). What it refuses is the caller's error 400."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel
    from pandas import DataFrame

    class Refusal(MlflowException):
        """The reason alone: MLflow's server would put the whole request before it."""

        @property
        def message(self) -> str:
            return self.reason

        @message.setter
        def message(self, text: str) -> None:
            self.reason: str = getattr(self, "reason", text)

    class Answers:
        def load_context(self, context: Any) -> None:
            self.answer = load(Path(context.artifacts["folder"]))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints would become the schema
            try:
                rows = model_input.to_dict(orient="records")
                refuse_no_text(rows)
                return DataFrame(self.answer(rows, params or {}))
            except InputError as error:
                raise Refusal.invalid_parameter_value(str(error)) from None

    class Served(Answers, PythonModel):
        """Two classes, since MLflow advises against what it finds in one."""

    set_model(Served())


def refuse_no_text(rows: list[Row]) -> None:
    for number, row in enumerate(rows):
        for name, value in row.items():
            if not isinstance(value, str):
                raise InputError(f"row {number}: `{name}` is null or no text; write one, or leave the row out")
