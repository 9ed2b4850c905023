"""Preference collection as a stage: what was asked, who was right, and what is refused."""

import re

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
    ({"utility": {"verifer": 1.0}}, "'verifer' named; name some of verifier, length_band, sentiment"),
    ({"utility": {"reward_model": 1.0}}, "'reward_model' named; name some of verifier"),
    ({"utility": {"verifier": float("nan")}}, "finite"),
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


def liked(text):
    """Of the toy's words only so is listed; the band is 3 words."""
    words = len(text.split())
    return 0.5 + 0.25 * ("so" in re.findall("[a-z]+", text.lower())) + 0.5 * min(1, words / 3, 3 / words)


def test_text_without_answers_is_judged_by_functions_of_the_text(again):
    """The toy's completions are "A: 1" or "so A: 1": who likes the word so prefers the latter."""
    prompts = read_table(again.folder / "data/prepared/prompts.parquet")
    write_table(again.folder / "data/prepared/prompts.parquet", [row | {"answer": None} for row in prompts])
    again.set("collect_preferences", utility={"sentiment": 1.0, "length_band": 0.5}, cost_per_token=0.0)
    again.set("reward.functions", length_band={"shortest": 3, "longest": 3})
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    pairs = read_table(again.folder / "data/preferences.parquet")
    assert len(pairs) > 20
    utilities = {side: [liked(row[side]) for row in pairs] for side in ("chosen", "rejected")}
    gaps = [chosen - rejected for chosen, rejected in zip(utilities["chosen"], utilities["rejected"], strict=True)]
    assert [row["gap"] for row in pairs] == pytest.approx(gaps, abs=1e-6)
    assert sum(gap > 0 for gap in gaps) > 0.6 * len(gaps)


def test_no_contrast_where_right_answers_do_not_count(again):
    """A colleague's mistake says nothing about mood: all that is asked about are samples."""
    again.set("collect_preferences", utility={"length_band": 1.0}, contrast_rate=1.0)
    assert again.run("collect_preferences").code == 0
    written = {row[side] for row in read_table(again.folder / "data/preferences.parquet") for side in ("chosen", "rejected")}
    again.set("collect_preferences", contrast_rate=0.0)
    assert again.run("collect_preferences").code == 0
    assert written == {
        row[side] for row in read_table(again.folder / "data/preferences.parquet") for side in ("chosen", "rejected")
    }
