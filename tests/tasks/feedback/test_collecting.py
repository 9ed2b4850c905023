"""Preference collection as a stage: what was asked, who was right, and what is refused."""

import pytest

from tasks.core.files import read_table, write_table
from tasks.models.text import encode_completions
from tasks.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def pairs(project):
    return read_table(project.folder / "data/preferences.parquet")


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def test_pairs_have_the_columns_and_differ(project, pairs):
    assert pairs[0].keys() == {"id", "prompt", "chosen", "rejected", "split", "gap"}
    assert len({row["id"] for row in pairs}) == len(pairs) == project.receipt("collect_preferences")["metrics"]["pairs"]
    assert all(row["chosen"] != row["rejected"] for row in pairs)


def test_no_prompt_is_both_trained_on_and_held_out(pairs):
    by_split = {split: {row["prompt"] for row in pairs if row["split"] == split} for split in ("train", "test")}
    assert 0 < len(by_split["test"]) <= 30
    assert not by_split["train"] & by_split["test"]


def test_only_training_prompts_are_asked_about(project, pairs):
    prompts = read_table(project.folder / "data/prepared/prompts.parquet")
    assert {row["prompt"] for row in pairs} <= {row["prompt"] for row in prompts if row["split"] == "train"}


def test_the_flip_rate_is_the_share_of_wrong_choices(project, pairs):
    wrong = sum(row["gap"] < 0 for row in pairs) / len(pairs)
    assert project.receipt("collect_preferences")["metrics"]["flip_rate"] == pytest.approx(wrong, abs=1e-6)
    assert 0.01 < wrong < 0.4


def test_every_text_of_a_pair_can_be_read_and_fits(project, pairs):
    """Also with end-of-text behind it: a sample that was cut off is written down as it would be trained on."""
    tokenizer = load_tokenizer(project.folder / "models/sft")
    texts = [row[side] for row in pairs for side in ("chosen", "rejected")]
    assert all(text.strip() for text in texts)
    assert max(len(ids) for ids in encode_completions(tokenizer, texts)) <= 8
    assert project.receipt("collect_preferences")["metrics"]["unreadable_samples"] >= 0


def test_a_data_set_takes_the_place_of_the_annotator(again):
    rows = [
        {"id": str(i), "prompt": "left ab Ask.\n", "chosen": "A: 1", "rejected": "A: 2", "split": "train"} for i in range(5)
    ]
    write_table(again.folder / "data/prepared/preferences.parquet", rows)
    again.set("collect_preferences", source="dataset")
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    assert read_table(again.folder / "data/preferences.parquet") == [row | {"gap": None} for row in rows]
    assert "flip_rate" not in again.receipt("collect_preferences")["metrics"]


@pytest.mark.parametrize(("values", "says"), [
    ({"source": "crowd"}, "must be annotator or dataset"),
    ({"num_prompts": 0}, "num_prompts"),
    ({"samples_per_prompt": 0}, "samples_per_prompt"),
    ({"bradley_terry_temperature": 0.0}, "bradley_terry_temperature"),
    ({"decisive_rate": 1.5}, "decisive_rate"),
])  # fmt: skip
def test_params_that_make_no_sense(again, values, says):
    again.set("collect_preferences", **values)
    done = again.run("collect_preferences")
    assert done.code == 1
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_prompts_without_answers_cannot_be_annotated(again):
    prompts = read_table(again.folder / "data/prepared/prompts.parquet")
    write_table(again.folder / "data/prepared/prompts.parquet", [row | {"answer": None} for row in prompts])
    done = again.run("collect_preferences")
    assert done.code == 1
    assert "needs prompts with an answer" in done.stderr.splitlines()[-1]
