"""Tables of routing benchmarks in their public layouts, one row a query: RouterBench has costs and scores, RouteLLM labels."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row, write_table
from tasks.data.calls import COLUMNS, read_calls
from tasks.data.prompt_evidence import repeats
from tasks.data.prompt_log import PromptLogConfig, read_prompt_log
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.routing import costs_of
from tests.processes import REPO
from tests.tasks.data.conftest import write_csv

LARGE, SMALL = "gpt-4-1106-preview", "WizardLM/WizardLM-13B-V1.2"
ROUTERBENCH: list[Row] = [
    {
        "sample_id": f"mtbench.{number}", "prompt": f"['What is {number}?']", "eval_name": "mtbench" if number < 3 else "mmlu",
        SMALL: [0.0, 0.5, 1.0, 0.0][number], LARGE: 1.0, f"{SMALL}|model_response": f"It is {number}",
        f"{LARGE}|model_response": "4", f"{SMALL}|total_cost": 0.001 * number, f"{LARGE}|total_cost": 0.03,
        "oracle_model_to_route_to": LARGE,
    }
    for number in range(4)
]  # fmt: skip
WEAK = "mixtral-8x7b-instruct-v0.1"
ROUTELLM: list[Row] = [
    {"prompt": f"How many are {number}?", WEAK: number % 2 == 0, LARGE: True, f"{WEAK}_response": "2", f"{LARGE}_response": ""}
    for number in range(4)
]


def describe(folder: Path, rows: list[Row], body: str, suffix: str = "parquet") -> Path:
    file, described = folder / f"table.{suffix}", folder / "described.yaml"
    if suffix == "parquet":
        write_table(file, rows)
    else:
        write_csv(file, rows)
    pin = hashlib.sha256(file.read_bytes()).hexdigest()
    described.write_text(f"log: {{file: {file}, sha256: {pin}, {body}}}\n")
    return described


BENCH = (
    f"where: {{eval_name: mtbench}}, models: [{SMALL}, {LARGE}], columns: {{query_id: '{{sample_id}}', query: '{{prompt}}'}}, "
    "model_columns: {cost: '{model}|total_cost', completion: '{model}|model_response'}"
)


def test_routerbench_has_scores_and_costs(tmp_path: Path) -> None:
    rows = read_calls(describe(tmp_path, ROUTERBENCH, BENCH))
    assert len(rows) == 3 * 2
    assert all(tuple(row) == COLUMNS for row in rows)
    assert rows[1] == dict.fromkeys(COLUMNS) | {
        "query": "['What is 1?']", "prompt": SMALL, "correct": 0.5, "query_id": "mtbench.1", "prompt_id": SMALL,
        "completion": "It is 1", "cost": 0.001,
    }  # fmt: skip
    assert {type(row["correct"]) for row in rows} == {float}
    answers = Answers.of(rows)
    assert answers.success.tolist() == [0.5, 1.0]
    assert costs_of(rows, answers).tolist() == [[0.0, 0.03], [0.001, 0.03], [0.002, 0.03]]


def test_routellm_has_labels_and_a_price_of_each_model(tmp_path: Path) -> None:
    """Its cost is the share of strong calls."""
    columns = "columns: {query: '{prompt}'}, model_columns: {completion: '{model}_response'}"
    described = describe(tmp_path, ROUTELLM, f"models: {{{WEAK}: 0, {LARGE}: 1}}, {columns}", "csv")
    rows = read_prompt_log(PromptLogConfig(source=str(described), split="question", fold=0), described)
    assert [row["correct"] for row in rows] == [True, False, True, False, True, True, True, True]
    assert [row["cost"] for row in rows] == [0.0] * 4 + [1.0] * 4
    assert (rows[0]["query_id"], rows[4]["query_id"], rows[0]["completion"]) == ("query-0", "query-0", "2")


LONG: list[Row] = [
    {"llm": llm, "query": f"What is {number}?", "prompt_id": "cot", "prompt": "Think.", "correct": llm != "small"}
    for llm in ("small", "large", "other")
    for number in range(2)
]
LONG_COLUMNS = "model: llm, columns: {prompt_id: '{llm}/{prompt_id}'}"


def test_a_row_for_each_call_has_the_price_of_its_model(tmp_path: Path) -> None:
    rows = read_calls(describe(tmp_path, LONG, f"models: {{large: 1, small: 0.1}}, {LONG_COLUMNS}"))
    assert [(row["prompt_id"], row["cost"]) for row in rows] == [("small/cot", 0.1)] * 2 + [("large/cot", 1.0)] * 2
    rows = read_calls(describe(tmp_path, LONG, f"models: [other], {LONG_COLUMNS}"))
    assert [(row["prompt_id"], row["cost"]) for row in rows] == [("other/cot", None)] * 2


def test_the_released_log_of_two_models(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand questions under six prompts of each; the price is that of the large model."""
    monkeypatch.setenv("REALIGN_SHARED", str(shared))
    answers = Answers.of(rows := read_calls(REPO / "data/prompt_logs/gsm8k_models.yaml"))
    assert answers.calls.tolist() == [[1.0] * 12] * 1000
    assert costs_of(rows, answers).sum(axis=1).tolist() == [6.0] * 1000
    assert answers.success.max() == pytest.approx(0.672)


@pytest.mark.parametrize(("body", "says"), [
    (f"models: [smal], {LONG_COLUMNS}", "no row is of model `smal`; did you mean `small`? (`models` of the log)"),
    ("models: [small], model: lm", "no column `lm`; did you mean `llm`? (`model` of the log)"),
    ("model: llm", "`models` of the log is empty; name those to take of small, large, other"),
])  # fmt: skip
def test_a_long_table_that_is_not_as_described(body: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_calls(describe(tmp_path, LONG, body))
    assert says in str(error.value)


@pytest.mark.parametrize(("body", "says"), [
    ("models: [gpt-4-1106-previw], columns: {query: '{prompt}'}", "no column `gpt-4-1106-previw`; did you mean `gpt-4-1"),
    (f"models: [{LARGE}], model_columns: {{cost: '{{model}}|cost'}}", "|cost`; did you mean `gpt-4-1106-preview|total_cost`"),
    (f"models: {{{LARGE}: 1}}, model_columns: {{cost: '{{model}}|total_cost'}}", "`models` has costs and `model_columns` a co"),
    (f"models: [{LARGE}]", f"row 0, {LARGE}: no column `query`"),
])  # fmt: skip
def test_a_wide_table_that_is_not_as_described(body: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_calls(describe(tmp_path, ROUTERBENCH, body))
    assert says in str(error.value)


def test_a_score_outside_0_to_1_is_named_by_row_and_model(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [row | {LARGE: 7.0} for row in ROUTERBENCH]
    with pytest.raises(InputError, match=rf"row 0, {LARGE}: `correct` is '7'; it must be true or false, or a score"):
        read_calls(describe(tmp_path, rows, BENCH))
    rows = [row | {LARGE: 0.5, SMALL: 0.5} for row in ROUTERBENCH]
    described = describe(tmp_path, rows, BENCH)
    with pytest.raises(InputError, match=r"every answer to a training question is worth 0\.5, so no prompt is better"):
        read_prompt_log(PromptLogConfig(source=str(described), split="question", fold=0), described)


def test_scores_of_repeated_calls_disagree_where_they_differ() -> None:
    rows = [{"query": "a", "prompt_id": "p", "correct": score} for score in (0.5, 0.5, 1.0)]
    found = repeats([*rows, {"query": "b", "prompt_id": "p", "correct": 0.5}, {"query": "b", "prompt_id": "p", "correct": 0.5}])
    assert (found["repeated_pairs"], found["disagreeing_pairs"]) == (2, 1)
    assert found["noise"] == pytest.approx((2 / 3 + 0) / 2)
