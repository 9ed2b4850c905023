"""Prompts live in MLflow's prompt registry: a version for each text, named by the fitted model and by its answers."""

from pathlib import Path
from typing import Any

import mlflow
import pytest

from tasks.core.mlflow_client import connect, tracking_uri
from tasks.core.prompt_registry import register_prompts
from tasks.core.registry import served_folder
from tests.tasks.prompt_oirl.conftest import register_fit
from tests.tasks.prompt_oirl.test_selector import PROMPTS


def run_id(client: Any) -> str:
    return str(client.create_run(client.get_experiment_by_name("realign").experiment_id).info.run_id)


def test_one_text_is_one_version(registry: Path) -> None:
    client = connect()
    first, second = run_id(client), run_id(client)
    uris = register_prompts(client, first, "x", {"a/b": "Go.", "none": ""})
    assert uris == {"a/b": "prompts:/x.a-b/1", "none": "prompts:/x.none/1"}
    assert register_prompts(client, second, "x", {"none": "", "a/b": "Go on."})["a/b"] == "prompts:/x.a-b/2"
    assert register_prompts(client, second, "x", {"a/b": "Go.", "none": ""}) == uris
    assert client.load_prompt(uris["a/b"]).template == "Go."
    assert [prompt.version for prompt in client.search_prompt_versions("x.a-b")] == [2, 1]
    assert '"x.a-b"' in client.get_run(first).data.tags["mlflow.linkedPrompts"]
    known = {"prompts:/x.a-b/2": "Go on."}
    assert register_prompts(client, second, "y", known) == {"prompts:/x.a-b/2": "prompts:/x.a-b/2"}


def test_a_registry_that_refuses_stops_nothing(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect()
    client.create_registered_model("x.go")
    assert register_prompts(client, run_id(client), "x", {"go": "Go."}) == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking server: ")
    assert line.endswith("the prompts have no versions in its registry")


def test_the_model_and_its_answers_name_versions(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fits, of which the second changed one prompt."""
    register_fit(registry / "first")
    run = register_fit(registry / "second", {"plain": "Say it:", "steps": PROMPTS["steps"]})
    expected = {"plain": "prompts:/prompt_oirl.plain/2", "steps": "prompts:/prompt_oirl.steps/1"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    mlflow.set_tracking_uri(tracking_uri())
    try:
        model = mlflow.pyfunc.load_model("models:/prompt_oirl@newest")
        answered = model.predict([{"query": "Ann has 3 apples and 4 pears. How many are there in total?"}])
    finally:
        mlflow.set_tracking_uri(None)
    [row] = answered.to_dict(orient="records")
    assert row["prompt_uri"] == expected[row["prompt_id"]]
    assert connect().load_prompt(row["prompt_uri"]).template == row["prompt"]
    assert model.metadata.prompts == [*expected.values()]
    assert set(model.metadata.get_output_schema().input_names()) >= {"prompt_id", "prompt_uri", "distance"}
    assert "prompt_oirl.plain" in connect().get_run(run).data.tags["mlflow.linkedPrompts"]
    version, _ = served_folder("models:/prompt_oirl@champion", registry / "scratch")
    assert version == "models:/prompt_oirl/2"
    assert not (registry / "second/prompt_uris.json").exists()  # the stage's output does not depend on the registry
