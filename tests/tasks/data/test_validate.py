"""The gate: good tables pass, and every single expectation we ship is seen to fail on one bad row, and to name it."""

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.evidence import Tables, disagreements, measure_data, measure_preferences, questions
from tasks.data.expectations import ExpectationsConfig, Gate
from tasks.data.prompt_evidence import measure_prompt_log
from tasks.data.tables import COLUMNS
from tasks.data.verdict import Finding, sentence
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import train_tokenizer
from tests.processes import REPO

FILES = {name: REPO / f"data/expectations/{name}.yaml" for name in ("data", "preferences", "prompt_log")}
TASK = TaskConfig(prompt_format="{query}\n", max_prompt_tokens=80, max_new_tokens=20, verifier="number")
TOKENIZER = train_tokenizer(["How many apples has Ann now? She has 3."], 300)
PLACES = ["attic", "barn", "cellar", "den", "field", "garden", "hall", "kitchen", "lake", "museum", "office", "park"]
BAD = 7  # the row that is made bad


def good() -> Tables:
    """Four clean tables: no query resembles another, sides of pairs differ, no answer is too common."""
    queries = [f"{place} box {n}: how many {place} apples are in {place} box number {n}?" for n, place in enumerate(PLACES * 3)]
    held_out = [f"{place} jar {n}: count all {place} pears of {place} jar number {n}!" for n, place in enumerate(PLACES)]
    prompts = [
        {"id": f"p{n}", "query": query, "prompt": query + "\n", "answer": str(n), "solution": f"#### {n}", "mistake": None}
        | {"kind": "ab"[n % 2], "split": "train" if n < len(queries) else ("test", "validation")[n % 2]}
        for n, query in enumerate(queries + held_out)
    ]
    demonstrations = [
        {"id": f"d{n}", "query": query, "instruction_id": "none", "prompt": query + "\n", "completion": f"#### {n}"}
        for n, query in enumerate(queries)
    ]
    preferences = [
        {
            "id": f"q{n}",
            "prompt": query + "\n",
            "chosen": "1" * (1 + n % 3),
            "rejected": "22",
            "split": "test" if n < 5 else "train",
        }
        for n, query in enumerate(queries)
    ]
    corpus = [{"text": f"{query}\n#### {n}"} for n, query in enumerate(queries)]
    values = {"ranking": (1.0, 2.0), "rating": (5.0, 2.0), "thumbs": (1.0, 0.0)}
    feedback = [
        {"id": f"f{n}", "prompt": row["prompt"], "completion": row[side], "kind": kind, "value": value, "annotator": "ann"}
        | {"split": row["split"]}
        for n, row in enumerate(preferences)
        for kind in [list(values)[n % 3]]
        for side, value in zip(("chosen", "rejected"), values[kind], strict=True)
    ]
    tables = {"corpus": corpus, "demonstrations": demonstrations, "prompts": prompts, "preferences": preferences}
    return tables | {"feedback": feedback}


def good_log() -> Tables:
    """Every training and every test query once under two prompts."""
    rows = [
        {"query_id": row["id"], "prompt_id": prompt_id, "query": row["query"], "prompt": text, "completion": None}
        | {"correct": index % 3 == 0, "split": "train" if row["split"] == "train" else "test", "cost": None}
        for index, row in enumerate(good()["prompts"])
        for prompt_id, text in (("short", "Be short."), ("steps", "Step by step."))
    ]
    return {"prompt_log": rows}


def measured(kind: str, tables: Tables) -> Tables:
    """Everything the gate judges: the tables, and what is measured of them."""
    if kind == "data":
        return tables | measure_data(tables, TOKENIZER, TASK)[0]
    if kind == "prompt_log":
        return good_log() | measure_prompt_log(good_log()["prompt_log"])
    judged = {name: tables[name] for name in ("preferences", "feedback")}
    return judged | measure_preferences(*judged.values(), tables["prompts"], TOKENIZER, TASK)[0]


def failures(kind: str, tables: Tables) -> list[Finding]:
    return [finding for finding in Gate(FILES[kind]).judge(measured(kind, tables)) if not finding.success]


@pytest.mark.parametrize("kind", FILES)
def test_good_tables_pass(kind: str) -> None:
    assert failures(kind, good()) == []
    assert all(set(rows[0]) == set(COLUMNS[name]) for name, rows in good().items())  # the same tables prepare_data writes


def entries() -> list[Any]:
    return [
        pytest.param(kind, table, name, arguments, id=f"{kind}-{table}-{index}-{arguments.get('column', name)}")
        for kind, path in FILES.items()
        for table, listed in ExpectationsConfig.load(path).tables.items()
        for index, entry in enumerate(listed)
        for name, arguments in entry.items()
    ]


@pytest.mark.parametrize(("kind", "table", "expectation", "arguments"), entries())
def test_every_expectation_is_seen_to_fail(kind: str, table: str, expectation: str, arguments: dict[str, Any]) -> None:
    rows = measured(kind, good())[table]
    bad = min(BAD, len(rows) - 1)
    rows = spoil(rows, bad, expectation, arguments)
    gate = Gate(FILES[kind])
    gate.suites = {table: [{expectation: {key: value for key, value in arguments.items() if key != "mostly"}}]}
    [finding] = gate.judge({table: rows})
    assert not finding.success
    if "column" in arguments and "distinct" not in expectation:
        expected = {rows[bad].get("row", bad)} | ({0} if "unique" in expectation else set())
        assert {row["index"] for row in finding.rows} == expected
        assert finding.checked == len(rows)
    assert finding.reason in sentence([finding], "file.yaml")


def spoil(rows: list[Row], bad: int, expectation: str, arguments: dict[str, Any]) -> list[Row]:
    """The rows, with the one at index `bad` against the expectation."""
    column = arguments.get("column", "")
    value: Any = None
    match expectation:
        case "expect_table_columns_to_match_set":
            return [{name: row[name] for name in list(row)[1:]} | {"other": 1} for row in rows]
        case "expect_table_row_count_to_be_between":
            return []
        case "expect_column_distinct_values_to_contain_set":
            return [row | {column: "train"} for row in rows]
        case "expect_column_values_to_be_unique":
            value = rows[0][column]
        case "expect_column_values_to_be_in_set":
            first = arguments["value_set"][0]
            value = not first if isinstance(first, bool) else f"not {first}"
        case "expect_column_values_to_be_null":
            value = "short"
        case "expect_column_values_to_match_regex":
            value = " \n"
        case "expect_column_value_lengths_to_be_between":
            value = "x" * (arguments["max_value"] + 1)
        case "expect_column_values_to_be_between":
            value = arguments["max_value"] + 0.01 if "max_value" in arguments else arguments["min_value"] - 1
    return [row | {column: value} if index == bad else row for index, row in enumerate(rows)]


def subjects(kind: str, tables: Tables) -> dict[str, list[int]]:
    return {finding.subject: [row["index"] for row in finding.rows] for finding in failures(kind, tables)}


@pytest.mark.parametrize("kind", ["data", "preferences"])
def test_equal_sides_are_found_in_text_and_in_tokens(kind: str) -> None:
    tables = good()
    tables["preferences"][BAD]["chosen"] = "22"
    assert subjects(kind, tables) == {"pairs.differ": [BAD], "tokens_preferences.differ": [BAD]}


def test_a_held_out_pair_with_a_trained_prompt_is_found() -> None:
    tables = good()
    tables["preferences"][2]["prompt"] = tables["preferences"][BAD]["prompt"]
    assert subjects("preferences", tables) == {"pairs.same": [2]}


def spoiled(changes: dict[int, Row]) -> Tables:
    """Good tables, with these changes to rows of the feedback: rows 2n and 2n + 1 are question n."""
    tables = good()
    for index, change in changes.items():
        tables["feedback"][index] |= change
    return tables


@pytest.mark.parametrize(("changes", "found"), [
    ({13: {"value": 3.0}}, {"questions.gap": [12]}),  # 1, 3
    ({12: {"value": 2.0}}, {"questions.gap": [12]}),  # 2, 2
    ({13: {"value": 1.5}}, {"questions.gap": [12]}),
    ({13: {"value": 1.0}}, {}),  # a tie
    ({14: {"value": 6.0}}, {"ratings.value": [4]}),  # the fifth rating, by its place among ratings
    ({16: {"value": 0.5}}, {"thumbs.value": [4]}),
    ({14: {"kind": "stars"}}, {"feedback.kind": [14], "questions.kinds": [14]}),
    ({14: {"prompt": " "}}, {"feedback.prompt": [14], "questions.prompts": [14]}),
    ({14: {"annotator": "bob"}}, {"questions.annotators": [14]}),
    ({14: {"split": "test"}}, {"questions.splits": [14], "questions.same": [14]}),
])  # fmt: skip
def test_feedback_that_cannot_be_is_found(changes: dict[int, Row], found: dict[str, list[int]]) -> None:
    assert subjects("preferences", spoiled(changes)) == found


def test_ties_may_count_as_one_or_as_many() -> None:
    def gap(*ranks: float) -> bool:
        rows = [
            {"id": "q", "prompt": "p", "kind": "ranking", "annotator": "a", "split": "train", "value": rank} for rank in ranks
        ]
        [question] = questions(rows)
        return bool(question["gap"])

    assert not any(gap(*ranks) for ranks in [(1, 2, 3), (3, 1, 2), (1, 1, 2), (1, 1, 3), (1, 2, 2, 4), (1,)])
    assert all(gap(*ranks) for ranks in [(2, 3), (1, 3), (1, 1, 4), (0, 1), (1, 2, 2, 5)])


def test_feedback_that_contradicts_itself_is_counted() -> None:
    """Pair 7 is asked again and answered otherwise, pair 8 the same; one completion gets two ratings of one annotator."""
    tables = good()
    pair, same = (tables["preferences"][row] for row in (7, 8))
    turned = pair | {"id": "again", "chosen": pair["rejected"], "rejected": pair["chosen"]}
    rated = tables["feedback"][14]
    feedback = [*tables["feedback"], rated | {"id": "again", "value": 3.0}, rated | {"id": "tied"}, rated | {"id": "tied"}]
    figures = disagreements([*tables["preferences"], turned, same | {"id": "more"}], feedback)
    assert figures == {
        "repeated_pairs": 2, "contradicted_pairs": 1, "tied_questions": 1, "repeated_judgements": 1, "changed_judgements": 1,
    }  # fmt: skip


def test_a_pair_that_no_feedback_is_about() -> None:
    tables = good()
    tables["feedback"] = [row for row in tables["feedback"] if row["id"] != f"f{BAD}"]
    assert subjects("preferences", tables) == {"pairs.asked": [BAD]}
    tables["feedback"] = []
    assert subjects("preferences", tables) == {}


def test_length_that_tells_the_label_is_found() -> None:
    tables = good()
    for row in tables["preferences"]:
        row["rejected"] = "4444"
    assert subjects("data", tables) == {"balance.chosen_longer": [0]}


def test_texts_that_do_not_fit_are_found_after_tokenizing() -> None:
    tables = good()
    tables["demonstrations"][BAD]["completion"] = "9" * 20  # 21 tokens with eos: the last label would be a digit
    tables["demonstrations"][BAD + 1]["prompt"] = "9" * 80
    found = subjects("data", tables)
    assert found == {
        "tokens_demonstrations.prompt_room": [BAD + 1],
        "tokens_demonstrations.completion_room": [BAD],
        "tokens_demonstrations.completion_ends": [BAD],
    }


def test_padding_with_end_of_text_is_found() -> None:
    tokenizer = train_tokenizer(["a"], 280)
    tokenizer.pad_token = tokenizer.eos_token
    tables = good()
    found = Gate(FILES["data"]).judge(measure_data(tables, tokenizer, TASK)[0])
    assert "special_tokens.pad_is_eos" in {finding.subject for finding in found if not finding.success}


@pytest.mark.parametrize(
    ("table", "column"), [("corpus", "text"), ("demonstrations", "query"), ("prompts", "query"), ("preferences", "prompt")]
)
def test_contamination_of_each_table_is_found_and_named(table: str, column: str) -> None:
    tables = good()
    held_out = len(PLACES) * 3 + 4
    query = tables["prompts"][held_out]["query"]
    tables[table][BAD][column] = f"Solved: {query} #### 4" if table == "corpus" else query.upper()
    found = {finding.subject: finding for finding in failures("data", tables)}
    assert set(found) == {f"overlap_{table}.near"} | ({f"overlap_{table}.same"} if table != "corpus" else set())
    for finding in found.values():
        assert finding.is_contamination
        assert finding.failed == 1
        [row] = finding.rows
        assert (row["index"], row["id"]) == (held_out, f"p{held_out}")
        assert f"in {table} row {BAD}" in row["found"]
    assert "allow_contamination: true" in sentence(list(found.values()), "data.yaml")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "expectations.yaml"

    def use() -> None:
        gate = Gate(path)
        gate.judge(good())
        gate.refuse_unknown(good())

    def refused(text: str) -> str:
        path.write_text(f"expectations:\n  tables: {text}\n")
        with pytest.raises(InputError) as error:
            use()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "corpus: expect_nothing cannot be used" in refused("{corpus: [{expect_nothing: {}}]}")
    assert "expect_column_values_to_be_unique cannot be used (colum: extra fields" in refused(
        "{corpus: [{expect_column_values_to_be_unique: {colum: text}}]}"
    )
    assert "there is no table `corpse` to judge; there are corpus," in refused("{corpse: []}")
    assert "unknown key `expectations.other`" in refused("{}\n  other: 1")


def test_an_expectation_on_a_missing_column_says_so(tmp_path: Path) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text("expectations:\n  tables: {corpus: [{expect_column_values_to_not_be_null: {column: nope}}]}\n")
    [finding] = Gate(path).judge(good())
    assert not finding.success
    assert '"nope"' in finding.first_rows
