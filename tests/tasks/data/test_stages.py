"""prepare_data, validate_data and validate_preferences as processes: what they write, and how they refuse."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.files import Row, digest, read_json, read_jsonl, read_table, write_table
from tasks.data.evidence import overlap
from tasks.data.tables import COLUMNS, NUMBERS
from tests.processes import REPO, Nursery, python
from tests.tasks.data.conftest import Workspace

PREPARED = [f"data/prepared/{table}.parquet" for table in ("corpus", "demonstrations", "prompts", "preferences", "feedback")]
OUTPUTS = [*PREPARED, "data/prepared/instructions.json", "models/tokenizer", "reports/prepare_data"]


def succeed(workspace: Workspace, stage: str) -> str:
    done = workspace.run(stage)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout


def verdict(workspace: Workspace, stage: str = "validate_data") -> Any:
    return read_json(workspace.folder / f"reports/{stage}/verdict.json")


def last_run(workspace: Workspace) -> tuple[Any, set[str]]:
    """The newest MLflow run of the workspace, and the names of its artifacts."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.environment["MLFLOW_TRACKING_URI"])
    [run, *_] = client.search_runs([client.get_experiment_by_name("realign").experiment_id], order_by=["start_time DESC"])
    return run, {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_the_default_is_prepared_bit_for_bit_and_passes_the_gate(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, database: Path, nursery: Nursery
) -> None:
    succeed(workspace, "prepare_data")
    prompts = read_table(workspace.folder / "data/prepared/prompts.parquet")
    assert {row["split"] for row in prompts} == {"train", "validation", "test"}
    instructions = read_json(workspace.folder / "data/prepared/instructions.json")
    default = next(entry["text"] for entry in instructions["instructions"] if entry["id"] == instructions["default"])
    assert default == "Let's think step by step."
    assert all(row["prompt"] == f"{row['query']}\n{default}\n" for row in prompts)
    metrics = read_json(workspace.folder / "reports/prepare_data/metrics.json")
    assert metrics["rows/corpus"] == metrics["rows/demonstrations"] == 120
    assert 0.6 < metrics["right_demonstrations"] < 0.9

    assert "expectations hold" in succeed(workspace, "validate_data")
    assert verdict(workspace)["success"]
    assert not verdict(workspace)["contaminated"]
    assert len(verdict(workspace)["examples"]) == 20
    assert str(workspace.folder) not in json.dumps(verdict(workspace))

    again = Workspace(tmp_path_factory.mktemp("again"), database, nursery)
    for stage in ("prepare_data", "validate_data"):
        succeed(again, stage)
    assert len(OUTPUTS) == 8
    for output in [*OUTPUTS, "reports/validate_data"]:
        assert digest(workspace.folder / output) == digest(again.folder / output), output


def test_the_gate_opens_no_socket(workspace: Workspace) -> None:
    """Any attempt to reach an address ends the process."""
    succeed(workspace, "prepare_data")
    (workspace.folder / "deaf.py").write_text(
        "import runpy, sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.bind'):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "sys.argv = ['validate', 'data']\n"
        "runpy.run_module('tasks.data.validate', run_name='__main__', alter_sys=True)\n"
    )
    done = workspace.nursery.run(workspace.folder, "deaf.py", **workspace.environment)
    assert (done.code, done.stderr) == (0, "")


def test_a_failing_gate_names_the_rows_and_publishes_nothing(workspace: Workspace) -> None:
    succeed(workspace, "prepare_data")
    file = workspace.folder / "data/prepared/demonstrations.parquet"
    rows = read_table(file)
    rows[3]["completion"] = None
    rows[5]["id"] = rows[4]["id"]
    write_table(file, rows)
    sentence = workspace.refused("validate_data")
    assert sentence.startswith("validate_data: demonstrations.id: 2 of 120 rows fail expect_column_values_to_be_unique: "), (
        sentence
    )
    assert "row 4: 'demonstration-4'; row 5: 'demonstration-4'" in sentence
    assert sentence.endswith("and 1 more expectations fail; correct the data, or change data/expectations/data.yaml")
    assert not (workspace.folder / "reports/validate_data").exists()
    run, artifacts = last_run(workspace)
    assert run.info.status == "FAILED"
    assert {"data_docs", "verdict.json"} <= artifacts


def test_pairs_are_judged_before_a_reward_model_sees_them(workspace: Workspace) -> None:
    succeed(workspace, "prepare_data")
    prompts = read_table(workspace.folder / "data/prepared/prompts.parquet")
    trained = [row for row in prompts if row["split"] == "train"]
    pairs: list[Row] = [
        {"id": row["id"], "prompt": row["prompt"], "chosen": row["solution"], "rejected": row["mistake"] or "#### 0"}
        | {"split": "test" if index < 10 else "train", "gap": 1.0}
        for index, row in enumerate(trained)
    ]
    file = workspace.folder / "data/preferences.parquet"
    write_table(file, pairs)
    rated = [
        {"id": row["id"], "prompt": row["prompt"], "completion": row[side], "kind": "rating", "value": value, "annotator": "a"}
        | {"split": row["split"]}
        for row in pairs
        for side, value in (("chosen", 5.0), ("rejected", 1.0))
    ]
    write_table(workspace.folder / "data/feedback.parquet", rated)
    succeed(workspace, "validate_preferences")
    assert verdict(workspace, "validate_preferences")["success"]
    figures = read_json(workspace.folder / "reports/validate_preferences/metrics.json")
    assert (figures["tied_questions"], figures["contradicted_pairs"]) == (0, 0)
    write_table(workspace.folder / "data/feedback.parquet", [], COLUMNS["feedback"], NUMBERS)
    succeed(workspace, "validate_preferences")

    pairs[20]["prompt"] = next(row["prompt"] for row in prompts if row["split"] == "test")
    write_table(file, pairs)
    (workspace.folder / "runs/validate_preferences.json").unlink()
    assert "overlap_preferences.same: 1 of" in workspace.refused("validate_preferences")
    workspace.set("validate_data.allow_contamination", True)
    succeed(workspace, "validate_preferences")
    allowed = verdict(workspace, "validate_preferences")
    assert (allowed["success"], allowed["contaminated"]) == (True, True)
    assert allowed["contamination"] == {"overlap_preferences.same": 1, "overlap_preferences.near": 1}
    assert last_run(workspace)[0].data.tags["contaminated"] == "true"


def sources(content: str, *lines: str) -> str:
    """A sources file with one set: the rows, pinned, and further lines."""
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    body = ["file: rows.jsonl", f"sha256: {sha256}", "tables: [demonstrations, prompts]", *lines]
    listed = "\n".join(f"      {line}" for line in body)
    return f"sources:\n  instructions: data/instructions/none.yaml\n  sets:\n    mine:\n{listed}\n"


GOOD = "".join(json.dumps({"prompt": f"What is {n} and one more?", "completion": f"{n + 1}"}) + "\n" for n in range(60))
BAD_INPUT = {
    "broken line": (GOOD + "{oops\n", [], "prepare_data: rows.jsonl:61: not valid JSON"),
    "missing column": (GOOD.replace("prompt", "promt"), [], "no column `prompt`; did you mean `promt`?"),
    "missing template": (GOOD, ['columns: {query: "{promp}"}'], "row 0: no column `promp`; did you mean `prompt`?"),
    "empty data set": ("\n", [], "rows.jsonl holds no rows"),
    "empty completion": (GOOD.replace('"7"', '" "'), [], "rows.jsonl, row 6: the completion is empty"),
    "too long": (GOOD.replace('"7"', f'"{"7" * 200}"'), [], "row 6 (mine-6): `completion` is 201 tokens, `task.max_new"),
    "only test rows": (GOOD, ["split: test"], "there are no train prompts"),
    "unknown key": (GOOD, ["splitt: test"], "unknown key `sources.sets.mine.splitt`"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_sentence(name: str, workspace: Workspace) -> None:
    content, lines, says = BAD_INPUT[name]
    (workspace.folder / "rows.jsonl").write_text(content)
    workspace.write_sources(sources(content, *lines))
    assert says in workspace.refused("prepare_data")
    assert not (workspace.folder / "data/prepared").exists()


def test_bad_params_are_one_sentence(workspace: Workspace) -> None:
    workspace.set("prepare_data.vocab_sise", 300)
    assert "unknown key `prepare_data.vocab_sise`; did you mean `vocab_size`?" in workspace.refused("prepare_data")
    del workspace.params["prepare_data"]["vocab_sise"]
    workspace.set("prepare_data.tokenizer", "owner/name")
    assert "tokenizer owner/name: a hub name needs a revision" in workspace.refused("prepare_data")
    workspace.set("prepare_data.tokenizer_revision", "0" * 40)
    assert "neither in the local cache nor reachable (HF_HUB_OFFLINE is set)" in workspace.refused("prepare_data")
    workspace.set("prepare_data.sources", "data/sources/gsm8k.yaml")
    workspace.set("prepare_data.tokenizer", None)
    assert "$REALIGN_SHARED is not set; set it with" in workspace.refused("prepare_data")
    workspace.set("prepare_data.sources", "nowhere.yaml")
    assert "nowhere.yaml is missing" in workspace.refused("prepare_data")


def test_what_to_validate_must_be_said() -> None:
    done = python(REPO, "-m", "tasks.data.validate", "date")
    assert (done.code, done.stderr) == (1, "say what to validate, `data`, `preferences` or `prompt_log`; found date\n")


def test_your_own_file_goes_through(workspace: Workspace) -> None:
    (workspace.folder / "rows.jsonl").write_text(GOOD)
    workspace.write_sources(sources(GOOD))
    succeed(workspace, "prepare_data")
    assert len(read_table(workspace.folder / "data/prepared/prompts.parquet")) == 60
    digests = {entry.dataset.name: entry.dataset.digest for entry in last_run(workspace)[0].inputs.dataset_inputs}
    assert digests["rows.jsonl"] == hashlib.sha256(GOOD.encode()).hexdigest()[:36]


def test_feedback_of_a_data_set_is_prepared(workspace: Workspace) -> None:
    """Two of three rated completions in rows of their own; a correction that changes nothing is left out and counted."""
    rows = "".join(
        json.dumps({"prompt": f"What is {n} and one more?", "completion": text, "rating": rating, "annotator": "ann"}) + "\n"
        for n in range(60)
        for text, rating in ((f"{n + 1}", 5), (f"{n}", 1))
    )
    corrected = "".join(
        json.dumps({"prompt": f"What is {n} and two more?", "completion": f"{n}", "correction": f"{n + (n != 7) * 2}"}) + "\n"
        for n in range(60)
    )
    for name, text in (("rows", GOOD), ("rated", rows), ("corrected", corrected)):
        (workspace.folder / f"{name}.jsonl").write_text(text)
    more = "".join(
        f"    {name}: {{file: {name}.jsonl, sha256: {hashlib.sha256(text.encode()).hexdigest()}, tables: [{table}]}}\n"
        for name, text, table in (("rated", rows, "feedback"), ("corrected", corrected, "preferences"))
    )
    workspace.write_sources(sources(GOOD) + more)
    workspace.set("prepare_data.max_rows", None)
    succeed(workspace, "prepare_data")
    feedback = read_table(workspace.folder / "data/prepared/feedback.parquet")
    assert len(feedback) == 120
    first, second = feedback[:2]
    assert first["prompt"].startswith("What is 0 and one more?")
    assert second == first | {"completion": "0", "value": 1.0}
    assert (first["id"], first["kind"], first["value"], first["annotator"]) == ("rated-0", "rating", 5.0, "ann")
    pairs = read_table(workspace.folder / "data/prepared/preferences.parquet")
    assert (pairs[3]["chosen"], pairs[3]["rejected"], len(pairs)) == ("5", "3", 59)
    metrics = read_json(workspace.folder / "reports/prepare_data/metrics.json")
    assert (metrics["dropped/degenerate_pairs"], metrics["rows/preferences"], metrics["rows/feedback"]) == (1, 59, 120)


def test_rows_that_say_nothing_new_are_told(workspace: Workspace) -> None:
    """Every row twice is counted aloud; pairs whose sides are all one text are refused."""
    twice = GOOD + GOOD
    (workspace.folder / "rows.jsonl").write_text(twice)
    workspace.write_sources(sources(twice))
    workspace.set("prepare_data.max_rows", None)
    assert "60 of 120 prompts repeat another" in succeed(workspace, "prepare_data")
    metrics = read_json(workspace.folder / "reports/prepare_data/metrics.json")
    assert (metrics["doubled/prompts"], metrics["rows/prompts"]) == (60, 120)
    (workspace.folder / "runs/prepare_data.json").unlink()
    same = "".join(json.dumps({"prompt": f"{n} + 1?", "chosen": "4", "rejected": "4 "}) + "\n" for n in range(40))
    (workspace.folder / "pairs.jsonl").write_text(same)
    pinned = f"{{file: pairs.jsonl, sha256: {hashlib.sha256(same.encode()).hexdigest()}, tables: [preferences]}}"
    workspace.write_sources(sources(twice) + f"    pairs: {pinned}\n")
    done = workspace.run("prepare_data")
    assert done.code == 1
    assert "sources.yaml: the sides of all 40 pairs are one text to a model; name other columns" in done.stderr


@pytest.mark.parametrize("name", ["gsm8k", "svamp"])
def test_real_questions_pass_the_gate(name: str, workspace: Workspace, use_shared: Callable[[str], None]) -> None:
    use_shared(name)
    for stage in ("prepare_data", "validate_data"):
        succeed(workspace, stage)
    prompts = read_table(workspace.folder / "data/prepared/prompts.parquet")
    assert {row["split"] for row in prompts} == {"train", "validation", "test"}
    assert all(row["answer"].replace(",", "").lstrip("-").replace(".", "").isdigit() for row in prompts)
    assert all(row["solution"].endswith(row["answer"]) for row in prompts)


def test_mawps_repeats_itself_and_passes_only_if_allowed(workspace: Workspace, use_shared: Callable[[str], None]) -> None:
    use_shared("mawps")
    workspace.set("prepare_data.max_rows", None)
    succeed(workspace, "prepare_data")
    assert "set `validate_data.allow_contamination: true`" in workspace.refused("validate_data")
    workspace.set("validate_data.allow_contamination", True)
    succeed(workspace, "validate_data")
    assert verdict(workspace)["contamination"]["overlap_demonstrations.near"] > 10


@pytest.mark.parametrize("name", ["stories", "stories_gsm8k_solutions"])
def test_a_pretrained_tokenizer_and_real_pairs(
    name: str, workspace: Workspace, use_shared: Callable[[str], None], shared: Path
) -> None:
    use_shared(name)
    tokenizer = shared / "models/stories260K"
    workspace.set("prepare_data.tokenizer", str(tokenizer))
    workspace.set("prepare_data.too_long", "drop")
    workspace.set("task.prompt_format", "{query}\n")
    pin = f"write `tokenizer_revision: {digest(tokenizer)}`"
    assert pin in workspace.refused("prepare_data")
    workspace.set("prepare_data.tokenizer_revision", digest(tokenizer))
    succeed(workspace, "prepare_data")
    pairs = read_table(workspace.folder / "data/prepared/preferences.parquet")
    assert {row["split"] for row in pairs} == {"train", "test"}
    if name == "stories_gsm8k_solutions":
        assert "overlap_preferences.same: " in workspace.refused("validate_data")
    workspace.set("validate_data.allow_contamination", True)
    succeed(workspace, "validate_data")
    assert verdict(workspace)["success"]


def test_gsm8k_solutions_are_gsm8k_test_questions(shared: Path) -> None:
    """731 of them, as the data set's README counts by index; word for word, and none by mere likeness."""
    questions = [row["question"] for row in read_jsonl(shared / "datasets/gsm8k/test.jsonl")]
    prompts = [{"id": str(n), "query": question, "split": "test"} for n, question in enumerate(questions)]
    pairs = read_jsonl(shared / "datasets/gsm8k_solutions/preferences.jsonl")
    found = overlap(prompts, "preferences", [row["prompt"] for row in pairs])
    assert {row["row"] for row in found if row["same"]} == {row["gsm8k_test_index"] for row in pairs}
    assert sum(row["same"] for row in found) == sum(row["near"] > 0.75 for row in found) == 731


def test_contamination_of_the_other_released_sets(shared: Path) -> None:
    counts = {}
    for name in ("gsm8k", "svamp", "mawps"):
        rows = {split: read_jsonl(shared / f"datasets/{name}/{split}.jsonl") for split in ("train", "test")}
        train, test = ([row["question"] for row in rows[split]] for split in rows)
        prompts = [{"id": str(n), "query": question, "split": "test"} for n, question in enumerate(test)]
        counts[name] = sum(row["near"] > 0.75 for row in overlap(prompts, "train", train))
    assert counts == {"gsm8k": 0, "svamp": 0, "mawps": 13}
