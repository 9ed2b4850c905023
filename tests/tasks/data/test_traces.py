"""Traces of one's own application become a prompt log: by hand from plain rows, and from a real tracking server."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row, read_jsonl
from tasks.core.mlflow_client import connect, experiment_id
from tasks.core.prompt_registry import register_prompts
from tasks.data import traces
from tasks.data.calls import read_calls
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log
from tasks.data.traces import rows_of, write_log
from tests.processes import Nursery, TrackingServer

APP = """
import mlflow
from mlflow.entities import AssessmentSource

mlflow.set_experiment("app")


@mlflow.trace
def answer(question, version):
    prompt = mlflow.genai.load_prompt(version)
    return {"text": f"{prompt.format(question=question)} 7"}


@mlflow.trace
def broken(question):
    mlflow.genai.load_prompt("prompts:/app.short/1")
    raise ValueError("no model")


@mlflow.trace
def other():
    return "no prompt"


def say(trace, value, person):
    source = AssessmentSource(source_type="HUMAN" if person else "LLM_JUDGE", source_id="somebody")
    mlflow.log_feedback(trace_id=trace, name="right", value=value, source=source)


for number in range(5):
    for version in ("prompts:/app.short/1", "prompts:/app.steps/1"):
        answer(f"What is {number} and 3?", version)
        mlflow.flush_trace_async_logging()
        trace = mlflow.get_last_active_trace_id()
        if number < 4:
            say(trace, number % 2 == 0, person=True)
        say(trace, "no", person=False) if number < 3 else None
try:
    broken("?")
except ValueError:
    other()
mlflow.flush_trace_async_logging()
"""


def trace(**columns: Any) -> Row:
    return {
        "trace_id": "tr-1", "ended": True, "inputs": {"query": "How many?"}, "outputs": "4", "prompts": {"prompts:/a/1": "Go."},
        "feedback": {"correct": True},
    } | columns  # fmt: skip


def test_a_trace_is_a_call() -> None:
    [row], left_out = rows_of([trace()], "{query}", None, "correct")
    assert row == {
        "query": "How many?", "prompt": "Go.", "correct": True, "prompt_id": "prompts:/a/1", "completion": "4", "judged": True,
        "trace_id": "tr-1",
    }  # fmt: skip
    assert not left_out


def test_what_is_no_call_is_left_out_and_counted() -> None:
    rows, left_out = rows_of([trace(ended=False), trace(prompts={}), trace(prompts={}), trace()], "{query}", None, "correct")
    assert len(rows) == 1
    assert left_out == {"did not end well": 1, "loaded no version of a prompt": 2}


@pytest.mark.parametrize(("value", "correct"), [("yes", True), ("No", False), (1, True), (0.0, False), (None, None)])
def test_feedback_of_people_and_of_judges(value: Any, correct: bool | None) -> None:
    [row], _ = rows_of([trace(feedback={"correct": value})], "{query}", None, "correct")
    assert (row["correct"], row["judged"]) == (correct, correct is not None)


@pytest.mark.parametrize(("columns", "how", "says"), [
    ({"inputs": {"question": "?"}}, {}, "trace tr-1: no column `query`; there are `question`"),
    ({"inputs": "?"}, {}, 'trace tr-1: its inputs have no names, found "?"'),
    ({}, {"completion": "{text}"}, 'trace tr-1: its outputs have no names, found "4"'),
    ({"prompts": {"prompts:/a/1": "", "prompts:/b/2": ""}}, {}, "trace tr-1: it loaded prompts:/a/1, prompts:/b/2; trace each"),
    ({"feedback": {"correct": "so so"}}, {}, "trace tr-1: its feedback `correct` is 'so so'; it must be true or false"),
])  # fmt: skip
def test_a_trace_that_cannot_be_read_is_one_sentence(columns: Row, how: dict[str, str], says: str) -> None:
    with pytest.raises(InputError) as error:
        rows_of([trace(**columns)], "{query}", how.get("completion"), "correct")
    assert str(error.value).startswith(says)


def test_a_log_is_written_once(tmp_path: Path) -> None:
    rows, _ = rows_of([trace(), trace(feedback={})], "{query}", None, "correct")
    described = write_log("app", tmp_path / "logs/v1.2", rows)
    assert described == tmp_path / "logs/v1.2.yaml"
    assert [row["correct"] for row in read_calls(described)] == [True]
    with pytest.raises(InputError, match=r"v1\.2\.jsonl is there already, and a log that may have been learned from stays"):
        write_log("app", tmp_path / "logs/v1.2", rows)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: Path, nursery: Nursery) -> Iterator[TrackingServer]:
    """A tracking server which an application has been traced to."""
    server = TrackingServer(tmp_path_factory.mktemp("server"), database, nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        client = connect()
        run = client.create_run(experiment_id(client)).info.run_id
        register_prompts(client, run, "app", {"short": "{{question}} Short:", "steps": "{{question}} Steps:"})
    (server.folder / "app.py").write_text(APP)
    done = nursery.run(server.folder, "app.py", MLFLOW_TRACKING_URI=server.uri)
    assert done.code == 0, done.stderr
    yield server
    server.stop()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["traces", *arguments])
    traces.main()


def test_a_server_of_traces_becomes_a_log(
    server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr("tasks.core.traces.PAGE", 3)  # more than one page
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "app", "logs/app", "--query", "{question}", "--completion", "{text}", "--feedback", "right")
    assert capsys.readouterr().out == (
        "logs/app.yaml: 10 calls, of which 8 are judged; traces left out: 1 did not end well, 1 loaded no version of a prompt\n"
    )
    rows = read_jsonl(Path("logs/app.jsonl"))
    assert rows[0] | {"trace_id": ""} == {
        "query": "What is 0 and 3?", "prompt": "{{question}} Short:", "correct": True, "prompt_id": "prompts:/app.short/1",
        "completion": "What is 0 and 3? Short: 7", "judged": True, "trace_id": "",
    }  # fmt: skip
    assert [row["correct"] for row in rows[::2]] == [True, False, True, False, None]  # people's, though a judge spoke later
    config = PromptLogConfig(source="logs/app.yaml", split="question", fold=0)
    assert len(read_prompt_log(config, Path("logs/app.yaml"))) == 8
    described = Path("logs/app.yaml").read_text()
    assert hashlib.sha256(Path("logs/app.jsonl").read_bytes()).hexdigest() in described


def test_bad_input_is_one_sentence(server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="MLflow has no experiment 'ap'; there are Default, app, realign"):
        command(monkeypatch, "ap", "log")
    with pytest.raises(SystemExit, match="no trace of Default is a call under a prompt of the registry; left out: none"):
        command(monkeypatch, "Default", "log")
    with pytest.raises(SystemExit, match=r"^trace tr-\w+: no column `query`; there are `question`, `version`$"):
        command(monkeypatch, "app", "log")
    assert not [*tmp_path.glob("log.*")]
