"""A log brought from elsewhere: pinned, its rows and columns as described, split so that no question is on both sides."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row, write_json, write_table
from tasks.data.calls import COLUMNS
from tasks.data.contamination import HeldOut
from tasks.data.evidence import overlap
from tasks.data.prompt_evidence import overlap_prompt_log, questions, repeats
from tasks.data.prompt_log import FOLDS, PromptLogConfig, read_prompt_log, related
from tests.processes import REPO
from tests.tasks.data.conftest import write_csv

PROMPTS = {"short": "Be short.", "steps": "Step by step."}
PLACES = ["attic", "barn", "cellar", "den", "field", "garden", "hall", "kitchen", "lake", "museum", "office", "park"]
QUESTIONS = [f"How many {name} boxes of {name} pears does Ann count in {name} {n}?" for n, name in enumerate(PLACES)]
LOG: list[Row] = [
    {"query": query, "prompt_id": name, "prompt": text, "correct": (n + len(name)) % 2, "split": "test" if n < 4 else "train"}
    for n, query in enumerate(QUESTIONS)
    for name, text in PROMPTS.items()
]
Describe = Callable[..., Path]


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    """describe(rows, *lines): a log of these rows, and a pinned description of it with further lines."""

    def make(rows: list[Row], *lines: str, suffix: str = "jsonl", pin: str | None = None) -> Path:
        file = tmp_path / f"log.{suffix}"
        if suffix == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif suffix == "json":
            write_json(file, rows)
        elif suffix == "parquet":
            write_table(file, rows)
        else:
            write_csv(file, rows)
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
        body = [f"file: {file}", pin if pin is not None else f"sha256: {actual}", *lines]
        described = tmp_path / "described.yaml"
        described.write_text("log:\n" + "".join(f"  {line}\n" for line in body if line))
        return described

    return make


def load(path: Path, split: str = "given", fold: int = 0) -> list[Row]:
    return read_prompt_log(PromptLogConfig.model_validate({"source": str(path), "split": split, "fold": fold}), path)


def refused(path: Path, split: str = "given") -> str:
    with pytest.raises(InputError) as error:
        load(path, split)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_a_log_of_every_format_is_the_same_log(suffix: str, describe: Describe) -> None:
    rows = load(describe(LOG, suffix=suffix))
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert [row["correct"] for row in rows] == [bool(row["correct"]) for row in LOG]
    assert [(row["query_id"], row["prompt_id"]) for row in rows[:3]] == [
        ("query-0", "short"), ("query-0", "steps"), ("query-1", "short"),
    ]  # fmt: skip
    assert {row["completion"] for row in rows} == {None}


def test_rows_and_columns_are_those_described(describe: Describe) -> None:
    mixed = [
        {"q": row["query"], "text": row["prompt"], "right": str(bool(row["correct"])), "said": "x", "llm": llm, "seen": seen}
        for row in LOG
        for llm, seen in (("ours", True), ("theirs", True), ("ours", False))
    ]
    columns = 'columns: {query: "{q}", prompt: "{text}", correct: "{right}", completion: "{said}", split: "train"}'
    rows = load(describe(mixed, "where: {llm: ours, seen: true}", columns))
    assert len(rows) == len(LOG)
    assert [row["query"] for row in rows] == [row["query"] for row in LOG]
    assert [row["correct"] for row in rows] == [bool(row["correct"]) for row in LOG]
    assert {row["prompt_id"] for row in rows} == {"prompt-0", "prompt-1"}
    assert {row["completion"] for row in rows} == {"x"}


def test_a_table_in_the_repository_needs_no_description(tmp_path: Path) -> None:
    write_table(tmp_path / "log.parquet", LOG)
    assert len(load(tmp_path / "log.parquet")) == len(LOG)
    write_table(tmp_path / "empty.parquet", [])
    assert load(tmp_path / "empty.parquet") == []
    assert load(tmp_path / "empty.parquet", "question") == []


def test_what_is_not_pinned_is_refused_with_the_value_to_write(describe: Describe) -> None:
    actual = hashlib.sha256(describe(LOG).with_name("log.jsonl").read_bytes()).hexdigest()
    assert refused(describe(LOG, pin="")).endswith(f"log.jsonl is not pinned; add `sha256: {actual}`")
    assert refused(describe(LOG, pin="sha256: abc")).endswith(f"if the change is wanted, write `sha256: {actual}`")


def test_a_variable_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "described.yaml"
    path.write_text("log: {file: '${SOME_FOLDER}/log.csv'}\n")
    assert "described.yaml: log: $SOME_FOLDER is not set; set it with" in refused(path)
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert refused(path).endswith("log.csv is missing")


def changed(number: int, **values: Any) -> list[Row]:
    return [row | values if index == number else row for index, row in enumerate(LOG)]


BAD: dict[str, tuple[list[Row], list[str], str]] = {
    "label": (changed(3, correct="maybe"), [], "log.jsonl, row 3: `correct` is 'maybe'; it must be true or false, or a"),
    "column": ([{"quer": 1, **row} | {"query": row["query"]} for row in LOG], ['columns: {query: "{qeury}"}'], "did you mean"),
    "absent": ([{"prompt": "p", "correct": 1}], [], "log.jsonl, row 0: no column `query`"),
    "field": (LOG, ['columns: {queri: "{query}"}'], "described.yaml: `log.columns.queri"),
    "where column": (LOG, ["where: {promptid: short}"], "no column `promptid`; did you mean `prompt_id`? (`where` of the log)"),
    "where value": (LOG, ["where: {prompt_id: shrot}"], "no row has 'shrot' as its `prompt_id` (`where` of the log); there"),
    "two texts": (changed(5, prompt="Other."), [], "prompt steps has one text in row 1 and another in row 5; correct the log"),
    "one kind": ([row | {"correct": 0} for row in LOG], [], "every answer to a training question is wrong, so no prompt is"),
    "no rows": ([], [], "log.jsonl holds no rows"),
    "no split": ([{k: v for k, v in row.items() if k != "split"} for row in LOG], [], "set `prompt_log.split: question`"),
    "unknown key": (LOG, ["were: {}"], "unknown key `log.were`; did you mean `where`?"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_logs_are_one_sentence(name: str, describe: Describe) -> None:
    rows, lines, says = BAD[name]
    assert says in refused(describe(rows, *lines))


def test_rows_are_named_by_their_place_in_the_file(describe: Describe) -> None:
    rows = [{"llm": "other"} | row for row in LOG] + [{"llm": "ours"} | row for row in changed(2, correct="?")]
    assert f"row {len(LOG) + 2}: `correct` is '?'" in refused(describe(rows, "where: {llm: ours}"))


def test_a_broken_csv_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("query,prompt,correct\na,b,1\na,b\n")
    assert refused(tmp_path / "log.csv").endswith("log.csv:3: not one value for each of the columns query, prompt, correct")
    (tmp_path / "log.csv").write_bytes(b"query,prompt,correct\n\xff,b,1\n")
    assert "not UTF-8" in refused(tmp_path / "log.csv")


def test_folds_of_questions_share_nothing_and_miss_nothing(describe: Describe) -> None:
    """Every question is test in exactly one fold, its near-repeats with it, whatever the order of the rows."""
    near = [row | {"query": row["query"].replace("does Ann", "does, Ann").upper()} for row in LOG]
    path = describe(LOG + near)
    tested: list[str] = []
    for fold in range(FOLDS):
        rows = load(path, "question", fold)
        test, train = ({row["query"] for row in rows if row["split"] == side} for side in ("test", "train"))
        held_out = HeldOut(sorted(test))
        assert not [query for query in train if held_out.has(query)]
        tested += test
    assert sorted(tested) == sorted({row["query"] for row in LOG + near})
    sides = {row["query"]: row["split"] for row in load(path, "question")}
    assert sides == {row["query"]: row["split"] for row in load(describe((LOG + near)[::-1]), "question")}


def test_near_repeats_are_related_through_others() -> None:
    chain = ["a b c d e f g h i j", "x b c d e f g h i j", "x b c d e f g h y j"]
    assert len(set(related([*chain, "nothing like the rest of it at all"]))) == 2
    assert related(["Same?", "same!"]) == ["same", "same"]


def test_questions_without_an_answer_are_named() -> None:
    rows = [row | {"query_id": row["query"]} for row in LOG]
    assert [row["missing"] for row in questions(rows)] == [None] * len(QUESTIONS)
    found = questions(rows[:1] + rows[2:])
    assert (found[0]["missing"], found[0]["missing_where"]) == (
        "steps",
        f"query {QUESTIONS[0]} has no answer under prompt steps",
    )


def test_a_prompt_without_training_calls_is_asked_of_test_queries_alone() -> None:
    rows = [row | {"query_id": row["query"]} for row in LOG]
    unseen = [row | {"prompt_id": "new"} for row in rows if row["split"] == "test" and row["prompt_id"] == "short"]
    assert [row["missing"] for row in questions(rows + unseen)] == [None] * len(QUESTIONS)
    assert [row["missing"] for row in questions(rows + unseen[1:])] == ["new"] + [None] * (len(QUESTIONS) - 1)


def test_overlap_counts_questions_and_names_rows_of_the_log() -> None:
    rows = [row | {"query_id": row["query"]} for row in LOG]
    assert not any(row["same"] or row["near"] for row in overlap_prompt_log(rows))
    leaking = [*rows, *(row | {"split": "train"} for row in rows[:2]), *rows[:2]]
    found = overlap_prompt_log(leaking)
    assert len(found) == 4  # test questions, however often they were asked
    assert [(row["row"], row["same_where"]) for row in found if row["same"]] == [(0, f"in prompt_log row {len(LOG)}")]


def test_overlap_is_that_of_the_other_gates() -> None:
    prompts = [{"id": "a", "query": QUESTIONS[0], "split": "test"}]
    asked = (
        {"query_id": "a", "query": QUESTIONS[0], "split": "test"},
        {"query_id": "b", "query": QUESTIONS[0], "split": "train"},
    )
    [theirs], [ours] = overlap(prompts, "prompt_log", ["", QUESTIONS[0]]), overlap_prompt_log(asked)
    assert ours == theirs


def test_calls_that_disagree_are_counted_by_hand() -> None:
    """Three calls, two right: of the three pairs of calls two disagree. Two calls alike: none."""
    labels = {("a", "p"): [True, True, False], ("a", "q"): [False, False], ("b", "p"): [True]}
    rows = [{"query": q, "prompt_id": p, "correct": label} for (q, p), found in labels.items() for label in found]
    figures = repeats(rows)
    assert figures == {
        "calls": 6, "queries": 2, "prompts": 2, "repeated_pairs": 2, "disagreeing_pairs": 1, "noise": pytest.approx(1 / 3),
    }  # fmt: skip
    assert "noise" not in repeats(rows[-1:])


@pytest.mark.parametrize(("name", "train", "test"), [("svamp", 90000, 28140), ("gsm8k", 44838, 6000)])
def test_the_released_logs(name: str, train: int, test: int, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as released, six prompts, and our split leaves no test question in train: not even nearly."""
    monkeypatch.setenv("REALIGN_SHARED", str(shared))
    path = REPO / f"data/prompt_logs/{name}.yaml"
    rows = load(path)
    assert (sum(row["split"] == "train" for row in rows), sum(row["split"] == "test" for row in rows)) == (train, test)
    assert list(dict.fromkeys(row["prompt_id"] for row in rows)) == ["nan", "CoT", "APE", "Dis", "ToT", "Decomp"]
    ours = overlap_prompt_log(load(path, "question"))
    assert len(ours) > 700
    assert not any(row["same"] or row["near"] > 0.75 for row in ours)
