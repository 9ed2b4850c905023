"""The fitted model as anyone would use it: chosen in Python, loaded from the registry, asked over HTTP, all the same answer."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.core.files import read_json
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.choose import choose
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.selector import fit
from tests.processes import ENVIRONMENT, PATIENCE, REPO, free_port, wait_until
from tests.project import INSTRUCTIONS
from tests.tasks.prompt_oirl.test_selector import PROMPTS as TWO
from tests.tasks.prompt_oirl.test_selector import rows_of

PROMPTS = {"go": "Go.", "stop": "Stop.", "ask": "Ask."}
CHANCES = {"left": [0.9, 0.2, 0.5], "right": [0.1, 0.8, 0.5]}
QUERIES = ["left ab", "right ba"]


def selector(prompts: dict[str, str] = PROMPTS) -> Any:
    return SimpleNamespace(
        prompts=prompts,
        features=lambda queries: np.array([[len(query), query.startswith("left")] for query in queries], dtype=float),
        score=lambda features: np.array([CHANCES["left" if left else "right"] for _, left in features]),
        unread=lambda queries: [max(0, len(query.split()) - 4) for query in queries],
    )


REFERENCE = Reference(np.array([[7.0, 1.0], [20.0, 0.0]]), unit=2.0, success={"go": 0.5, "stop": 0.6, "ask": 0.7})


def test_the_likeliest_prompt_and_its_alternatives() -> None:
    [left, right] = choose(selector(), REFERENCE, QUERIES, list(PROMPTS))
    assert left == {
        "prompt_id": "go", "prompt": "Go.", "probability": 0.9,
        "alternatives": [{"prompt_id": "ask", "probability": 0.5}, {"prompt_id": "stop", "probability": 0.2}],
        "unread_tokens": 0, "distance": 0.0, "far": False,
    }  # fmt: skip
    assert (right["prompt_id"], right["probability"]) == ("stop", 0.8)


def test_what_the_window_left_out_is_told() -> None:
    answered = choose(selector(), REFERENCE, ["left ab", "left ab and two more words"], ["go"])
    assert [each["unread_tokens"] for each in answered] == [0, 2]


def test_a_query_unlike_those_of_the_log_is_told() -> None:
    """By its length, of which two are a unit: 7 and 9 are near, 10 is far."""
    near, edge, far = choose(selector(), REFERENCE, ["left ab", "left abcd", "left abcde"], ["go"])
    assert [each["distance"] for each in (near, edge, far)] == [0.0, 1.0, 1.5]
    assert [each["far"] for each in (near, edge, far)] == [False, False, True]


@pytest.mark.parametrize(("margin", "chosen"), [(0.0, "go"), (0.3, "go"), (0.5, "ask"), (1.0, "ask")])
def test_the_best_prompt_is_left_for_a_margin_only(margin: float, chosen: str) -> None:
    """Best on average is ask; r̂ promises .9 of go and .5 of ask."""
    [left] = choose(selector(), REFERENCE, ["left ab"], list(PROMPTS), margin)
    assert left["prompt_id"] == chosen
    others = sorted({"go": 0.9, "ask": 0.5, "stop": 0.2}.items() - {(chosen, left["probability"])}, key=lambda each: -each[1])
    assert [(other["prompt_id"], other["probability"]) for other in left["alternatives"]] == others


def test_the_unit_is_what_the_log_is_used_to(tmp_path: Path) -> None:
    """101 queries on a line, one apart but for the last, which is 5 away: 99 of 100 are within 1."""
    line = np.array([[float(place)] for place in [*range(100), 104]])
    table = Answers([""] * 101, PROMPTS, np.ones((101, 3)), np.ones((101, 3)) * 2)
    reference = Reference.of(line, table, seed=0)
    assert reference.unit == 1.0
    assert reference.success == {"go": 0.5, "stop": 0.5, "ask": 0.5}
    reference.save(tmp_path / "reference.npz")
    again = Reference.load(tmp_path / "reference.npz")
    assert again.distances(np.array([[3.0], [50.5], [110.0]])).tolist() == [0.0, 0.5, 6.0]
    assert again.success == reference.success


def test_only_candidates_are_chosen() -> None:
    [left] = choose(selector(), REFERENCE, ["left ab"], ["stop", "ask", "stop"])
    assert left["prompt_id"] == "ask"
    assert left["alternatives"] == [{"prompt_id": "stop", "probability": 0.2}]
    assert choose(selector(), REFERENCE, ["left ab"], ["stop"])[0]["alternatives"] == []
    assert choose(selector(), REFERENCE, [], ["stop"]) == []


@pytest.mark.parametrize(("queries", "candidates", "says"), [
    (QUERIES, [], "`candidates` is empty; name at least one of go, stop, ask, or leave it out"),
    (QUERIES, ["go", "stpo"], "prompt 'stpo' is not known; did you mean `stop`?"),
    (QUERIES, ["GO"], "prompt 'GO' is not known; did you mean `go`?"),
    (QUERIES, ["?"], "prompt '?' is not known; there are go, stop, ask"),
    (["left ab", " "], ["go"], "query 1 is blank"),
    ([None], ["go"], "query 0 is blank"),
])  # fmt: skip
def test_what_cannot_be_chosen_is_one_sentence(queries: list[Any], candidates: list[str], says: str) -> None:
    with pytest.raises(InputError) as error:
        choose(selector(), REFERENCE, queries, candidates)
    assert str(error.value).startswith(says)


def test_a_margin_is_a_difference_of_chances() -> None:
    with pytest.raises(InputError, match="`margin` is 5; it is a difference of chances, from 0 to 1"):
        choose(selector(), REFERENCE, QUERIES, ["go"], 5)


def test_a_model_of_an_empty_log_says_so() -> None:
    with pytest.raises(InputError, match="knows no prompts"):
        choose(selector({}), REFERENCE, QUERIES, [])


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted choice on disk that needs no encoder, as the stage writes it."""
    folder = tmp_path_factory.mktemp("words") / "prompt_oirl"
    folder.mkdir()
    answers = Answers.of(rows_of(60))
    fitted = fit(answers, None, "kernel", seed=0)
    fitted.save(folder)
    Reference.of(fitted.features(answers.queries), answers, seed=0).save(folder / "reference.npz")
    return folder


def test_unknown_params_are_named_with_the_known_ones(words: Path) -> None:
    from tasks.prompt_oirl.served import load

    with pytest.raises(InputError, match="there is no param `candidate`; there are candidates, margin"):
        load(words)([{"query": "How many apples?"}], {"candidate": ["plain"]})


def test_a_story_is_near_and_a_poem_is_far(words: Path) -> None:
    from tasks.prompt_oirl.served import load

    asked = ["Ann has 21 apples and 33 pears. How many are there in total?", "Write me a poem about the sea"]
    assert [each["far"] for each in load(words)([{"query": query} for query in asked], {})] == [False, True]


def test_a_null_is_refused_and_the_word_none_is_not(words: Path, tmp_path: Path) -> None:
    """As MLflow's server reads a request, without the HTTP; its message begins with the reason, not with the request."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import invocations

    from tasks.core.serving import save_served
    from tasks.prompt_oirl.served import load

    rows, params = [{"query": "How many apples?"}], {"candidates": list(TWO), "margin": 0.0}
    script = REPO / "tasks/prompt_oirl/served.py"
    save_served(tmp_path / "model", script, words, (rows, params, load(words)(rows, {})), ["mlflow"])
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))

    def post(**body: Any) -> Any:
        return invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())

    told = json.loads(post(inputs=[{"query": "None"}, {"query": "How many?"}], params={"margin": 1}).response)
    assert told["predictions"] == load(words)([{"query": "None"}, {"query": "How many?"}], {"margin": 1.0})
    for body, says in (
        ({"inputs": [*rows, {"query": None}]}, "row 1: `query` is null or no text"),
        ({"inputs": [{"query": None}]}, "row 0: `query` is null or no text"),
        ({"dataframe_records": [*rows, {"query": None}]}, "row 1: `query` is null or no text"),
        ({"inputs": rows, "params": {"candidates": ["pla"]}}, "prompt 'pla' is not known"),
    ):
        with pytest.raises(MlflowException) as refused:
            post(**body)
        assert refused.value.message.startswith(says)
        assert refused.value.get_http_status_code() == 400


def uri(project: Any) -> str:
    return f"sqlite:///{project.folder / 'mlflow.db'}"


def test_it_is_registered_under_its_aliases(project: Any) -> None:
    client = project.client()
    [version] = client.search_model_versions("name='prompt_oirl'")
    receipt = project.receipt("prompt_oirl")
    assert version.run_id == receipt["run_id"]
    assert version.tags == {"contaminated": "false", "gain": f"{receipt['metrics']['gain']:+.4f}"}
    aliases = client.get_registered_model("prompt_oirl").aliases
    assert aliases == {"newest": version.version, "champion": version.version}
    assert receipt["metrics"]["gain_low"] > 0  # which is what makes a champion


def test_it_travels_without_pickle_and_without_the_repository(project: Any) -> None:
    run = project.receipt("prompt_oirl")["run_id"]
    folder = Path(project.client().get_run(run).info.artifact_uri.removeprefix("file://")) / "prompt_oirl"
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {
        "MLmodel",
        "served.py",
        "code/tasks/prompt_oirl/choose.py",
        "input_example.json",
        "serving_input_example.json",
    } <= files
    assert not [file for file in files if file.endswith((".pkl", ".pt", ".bin", ".pyc"))]
    assert read_json(folder / "artifacts/prompt_oirl/prompts.json") == INSTRUCTIONS
    assert all("==" in line for line in (folder / "requirements.txt").read_text().split())


def test_a_leaking_log_is_no_champion(project: Any, tmp_path: Path) -> None:
    """Fitted on a contaminated log it is registered, marked, and the alias stays with the version that deserved it."""
    again = project.copy(tmp_path / "project")
    verdict = again.folder / "reports/validate_prompt_log/verdict.json"
    verdict.write_text(json.dumps({"contaminated": True}))
    done = again.run("prompt_oirl")
    assert (done.code, done.stderr) == (0, "")
    assert read_json(again.folder / "reports/prompt_oirl/metrics.json")["contaminated"] == 1
    [run, *_] = again.runs("prompt_oirl")
    assert run.data.tags["contaminated"] == "true"
    assert run.data.metrics["contaminated"] == 1
    aliases = again.client().get_registered_model("prompt_oirl").aliases
    newest = again.client().get_model_version("prompt_oirl", aliases["newest"])
    assert (newest.run_id, newest.tags["contaminated"]) == (run.info.run_id, "true")
    assert aliases["champion"] != aliases["newest"]


def elsewhere(project: Any) -> dict[str, str]:
    """The environment of somebody who has the registry and no repository."""
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"}
    return environment | {"MLFLOW_TRACKING_URI": uri(project), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def url(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow models serve` as in the README, from a folder in which there is no repository to import from."""
    folder = tmp_path_factory.mktemp("elsewhere")
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/prompt_oirl@newest", "--env-manager", "local", "-p", str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=elsewhere(project), stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: server.poll() is not None or answers(f"{address}/ping"))
            assert server.poll() is None, (folder / "log").read_text()
            yield f"{address}/invocations"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=PATIENCE).status == 200)
    except OSError:
        return False


def ask(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["message"]


def test_the_server_answers_as_the_model_on_disk(project: Any, url: str) -> None:
    from tasks.prompt_oirl.served import load

    rows = [{"query": query} for query in QUERIES]
    status, predictions = ask(url, {"inputs": rows})
    assert status == 200
    on_disk = load(project.folder / "models/prompt_oirl")(rows, {})
    assert predictions == [row | {"prompt_uri": f"prompts:/prompt_oirl.{row['prompt_id']}/1"} for row in on_disk]
    assert all(
        {each["prompt_id"], *(other["prompt_id"] for other in each["alternatives"])} == set(INSTRUCTIONS)
        for each in predictions
    )
    assert predictions[0]["prompt"] == INSTRUCTIONS[predictions[0]["prompt_id"]]
    for each in predictions:
        chances = [each["probability"], *(other["probability"] for other in each["alternatives"])]
        assert chances == sorted(chances, reverse=True)


def test_a_file_of_queries_is_answered_without_a_server(project: Any, url: str, tmp_path: Path) -> None:
    """`mlflow models predict` as in the README, to the same answer."""
    body = {"inputs": [{"query": query} for query in QUERIES]}
    (tmp_path / "queries.json").write_text(json.dumps(body))
    command = "mlflow models predict -m models:/prompt_oirl@newest --env-manager local -t json -i queries.json -o choices.json"
    done = subprocess.run(
        command.split(), cwd=tmp_path, env=elsewhere(project), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "choices.json")["predictions"] == ask(url, body)[1]


def test_its_choices_are_those_the_report_shows(project: Any, url: str) -> None:
    from tasks.core.files import read_table

    choices = read_table(project.folder / "reports/prompt_oirl/choices.parquet")
    _, predictions = ask(url, {"inputs": [{"query": row["query"]} for row in choices]})
    assert [each["prompt_id"] for each in predictions] == [row["prompt_id"] for row in choices]
    assert [each["probability"] for each in predictions] == pytest.approx([row["probability"] for row in choices], abs=1e-3)


def test_candidates_go_with_the_request(url: str) -> None:
    status, [left] = ask(url, {"inputs": [{"query": "left ab"}], "params": {"candidates": ["stop", "ask"]}})
    assert status == 200
    assert {left["prompt_id"], *(other["prompt_id"] for other in left["alternatives"])} == {"stop", "ask"}


@pytest.mark.parametrize(("body", "says"), [
    ({"inputs": [{"query": "left ab"}], "params": {"candidates": []}}, "`candidates` is empty"),
    ({"inputs": [{"query": "left ab"}], "params": {"candidates": ["stpo"]}}, "did you mean `stop`?"),
    ({"inputs": [{"query": "  "}]}, "query 0 is blank"),
    ({"inputs": [{"query": None}]}, "row 0: `query` is null"),
    ({"inputs": [{"quest": "left ab"}]}, "missing inputs ['query']"),
])  # fmt: skip
def test_a_bad_request_is_told_why(url: str, body: dict[str, Any], says: str) -> None:
    status, message = ask(url, body)
    assert status == 400
    assert says in message


def test_the_example_that_is_stored_can_be_sent(project: Any, url: str) -> None:
    run = project.receipt("prompt_oirl")["run_id"]
    folder = Path(project.client().get_run(run).info.artifact_uri.removeprefix("file://")) / "prompt_oirl"
    status, predictions = ask(url, read_json(folder / "serving_input_example.json"))
    assert (status, len(predictions)) == (200, 3)


def test_the_server_imported_nothing_from_the_repository(project: Any, tmp_path: Path) -> None:
    """The model as loaded by MLflow elsewhere: its code is the code that was shipped."""
    script = tmp_path / "load.py"
    script.write_text(
        "import mlflow, sys\n"
        "model = mlflow.pyfunc.load_model('models:/prompt_oirl@champion')\n"
        "print(model.predict([{'query': 'left ab'}])['prompt_id'][0], sys.modules['tasks'].__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=elsewhere(project), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    chosen, code = done.stdout.split()[-2:]
    assert chosen in INSTRUCTIONS
    assert not Path(code).is_relative_to(REPO)
