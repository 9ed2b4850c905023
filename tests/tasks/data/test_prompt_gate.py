"""validate_prompt_log as a process: bad rows stop it; of a leak it leaves a refusal with its count, for what uses the split."""

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row, digest, read_json, write_table
from tasks.data.prompt_log import split_leaks
from tests.tasks.data.conftest import Workspace
from tests.tasks.data.test_prompt_log import PLACES
from tests.tasks.data.test_stages import last_run, succeed

STAGE = "validate_prompt_log"


def log(questions: int = 12) -> list[Row]:
    """Each question once under two prompts, the first four of them for the test."""
    return [
        {"query_id": f"q{n}", "prompt_id": name, "query": f"How many {place} pears are in {place} box {n}, says Ann?"}
        | {"prompt": f"{name}!", "completion": "1", "correct": n % 2 == 0, "split": "test" if n < 4 else "train"}
        for n, place in enumerate(PLACES[:questions])
        for name in ("go", "stop")
    ]


def write(workspace: Workspace, rows: list[Row]) -> None:
    write_table(workspace.folder / "data/prompt_log.parquet", rows)
    workspace.set("prompt_log.source", "data/prompt_log.parquet")


def verdict(workspace: Workspace) -> Any:
    return read_json(workspace.folder / f"reports/{STAGE}/verdict.json")


def metrics(workspace: Workspace) -> Any:
    return read_json(workspace.folder / f"reports/{STAGE}/metrics.json")


def test_a_sound_log_passes(workspace: Workspace) -> None:
    write(workspace, log())
    assert "11 of 11 expectations hold" in succeed(workspace, STAGE)
    assert (verdict(workspace)["success"], verdict(workspace)["contaminated"]) == (True, False)
    assert metrics(workspace)["calls"] == 24
    assert last_run(workspace)[0].data.tags["contaminated"] == "false"


def refusal(workspace: Workspace) -> str:
    """What a stage that uses the split stops with."""
    succeed(workspace, STAGE)
    with pytest.raises(InputError) as refused:
        split_leaks(workspace.folder / f"reports/{STAGE}")
    return str(refused.value)


def test_a_leak_is_refused_with_its_count_and_allowed_only_by_the_params(workspace: Workspace) -> None:
    rows = log()
    write(workspace, rows + [row | {"split": "train"} for row in rows[:6]])
    sentence = refusal(workspace)
    assert "overlap_prompt_log.same: 3 of 4 rows fail" in sentence
    assert "a test question is also a training question (row 0: in prompt_log row 24; " in sentence
    assert "set `prompt_log.split: question`, or `validate_data.allow_contamination: true` to go on, marked as such" in sentence
    assert (verdict(workspace)["success"], verdict(workspace)["contaminated"]) == (False, True)
    workspace.set("validate_data.allow_contamination", True)
    succeed(workspace, STAGE)
    assert (verdict(workspace)["success"], verdict(workspace)["contaminated"]) == (True, True)
    assert split_leaks(workspace.folder / f"reports/{STAGE}")
    assert verdict(workspace)["contamination"] == {"overlap_prompt_log.same": 3, "overlap_prompt_log.near": 3}
    assert metrics(workspace)["contaminated_prompts"] == 3
    assert last_run(workspace)[0].data.tags["contaminated"] == "true"


def test_splitting_by_question_mends_the_leak(workspace: Workspace) -> None:
    rows = log()
    write(workspace, rows + [row | {"split": "train"} for row in rows[:6]])
    workspace.set("prompt_log.split", "question")
    succeed(workspace, STAGE)
    assert not verdict(workspace)["contaminated"]


def test_repeated_calls_that_disagree_are_a_figure_and_no_failure(workspace: Workspace) -> None:
    rows = log()
    write(workspace, [*rows, *(row | {"correct": not row["correct"]} for row in rows[:3]), *rows[3:5]])
    succeed(workspace, STAGE)
    found = metrics(workspace)
    assert (found["repeated_pairs"], found["disagreeing_pairs"], found["noise"]) == (5, 3, 0.6)


SPOILT = {
    "no label": (
        {"correct": None},
        "prompt_log.correct: 1 of 24 rows fail",
        "nobody has said whether the answer is right (row 5:",
    ),
    "blank query": (
        {"query_id": "q99", "query": " "},
        "prompt_log.query: 1 of 24 rows fail",
        "the query is blank (row 5: ' ')",
    ),
    "unknown split": ({"split": "dev"}, "prompt_log.split: 1 of 24 rows fail", "(row 5: 'dev')"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_rows_are_named(name: str, workspace: Workspace) -> None:
    values, *says = SPOILT[name]
    rows = log()
    rows[5] |= values
    write(workspace, rows)
    sentence = workspace.refused(STAGE)
    assert all(words in sentence for words in says), sentence


def test_a_query_that_a_prompt_never_saw_is_named(workspace: Workspace) -> None:
    rows = log()
    write(workspace, rows[:9] + rows[10:])
    assert "questions.missing: 1 of 12 rows fail" in (sentence := workspace.refused(STAGE))
    assert "the query was not asked under every prompt (row 8: query q4 has no answer under prompt stop)" in sentence


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_log_of_one_side_is_refused(side: str, workspace: Workspace) -> None:
    write(workspace, [row for row in log() if row["split"] == side])
    assert "prompt_log.split: 1 of 1 rows fail expect_column_distinct_values_to_contain_set" in workspace.refused(STAGE)


def test_a_blank_prompt_is_the_query_as_it_is(workspace: Workspace) -> None:
    """As in data/instructions/chat.yaml and none.yaml."""
    rows = log()
    write(workspace, [row | {"prompt": "" if row["prompt_id"] == rows[0]["prompt_id"] else row["prompt"]} for row in rows])
    succeed(workspace, STAGE)
    assert verdict(workspace)["success"]


def test_an_empty_log_has_nothing_to_judge(workspace: Workspace) -> None:
    write(workspace, [])
    succeed(workspace, STAGE)
    assert verdict(workspace)["success"]


def test_the_released_svamp_split_leaks_and_ours_does_not(workspace: Workspace, shared: Path) -> None:
    workspace.environment["REALIGN_SHARED"] = str(shared)
    workspace.set("prompt_log.source", "data/prompt_logs/svamp.yaml")
    assert "overlap_prompt_log.same: 3777 of 3777 rows fail" in refusal(workspace)
    workspace.set("prompt_log.split", "question")
    succeed(workspace, STAGE)
    found = metrics(workspace)
    assert (found["contaminated_prompts"], found["queries"], found["prompts"]) == (0, 3961, 6)
    assert 0.2 < found["noise"] < 0.3  # LLaMA was sampled
    first = digest(workspace.folder / f"reports/{STAGE}")
    succeed(workspace, STAGE)
    assert digest(workspace.folder / f"reports/{STAGE}") == first
