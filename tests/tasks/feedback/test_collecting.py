"""Preference collection as a stage: what was asked, who was right, and what is refused."""

import re

import pytest
from pydantic import ValidationError

from tasks.core.files import read_table, write_table
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.text import encode_completions
from tasks.models.tokenizer import load_tokenizer
from tests.processes import REPO
from tests.project import PARAMS


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
    assert read_table(again.folder / "data/feedback.parquet") == []
    assert "flip_rate" not in again.receipt("collect_preferences")["metrics"]


@pytest.mark.parametrize(("values", "says"), [
    ({"kind": "stars"}, "kind"),
    ({"source": "judge", "kind": "rating"}, "source judge compares pairs"),
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


def test_a_source_is_one_of_three_folders():
    with pytest.raises(ValidationError, match="'annotator', 'judge' or 'dataset'"):
        CollectPreferencesConfig.model_validate(PARAMS["collect_preferences"] | {"source": "crowd"})
    for source in ("annotator", "judge", "dataset"):
        assert (REPO / f"tasks/feedback/{source}/collect.py").is_file()


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


@pytest.mark.parametrize("kind", ["ranking", "rating", "thumbs"])
def test_completions_that_are_judged_each_and_the_pairs_they_imply(again, kind):
    again.set("collect_preferences", kind=kind, bradley_terry_temperature=0.1)
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    feedback = read_table(again.folder / "data/feedback.parquet")
    assert list(feedback[0]) == ["id", "prompt", "completion", "kind", "value", "annotator", "split"]
    assert {row["kind"] for row in feedback} == {kind}
    by_question = {}
    for row in feedback:
        by_question.setdefault(row["id"], []).append(row)
    values = [sorted(row["value"] for row in rows) for rows in by_question.values()]
    assert min(map(len, values)) >= 2
    if kind == "ranking":
        assert all(ranks == list(range(1, len(ranks) + 1)) for ranks in values)
    else:
        assert {value for each in values for value in each} <= ({0.0, 1.0} if kind == "thumbs" else {1.0, 2.0, 3.0, 4.0, 5.0})
    pairs = read_table(again.folder / "data/preferences.parquet")
    worth = {(row["prompt"], row["completion"]): row["value"] * (-1 if kind == "ranking" else 1) for row in feedback}
    assert all(worth[row["prompt"], row["chosen"]] > worth[row["prompt"], row["rejected"]] for row in pairs)
    assert {row["split"] for row in pairs} == {row["split"] for row in feedback} == {"train", "test"}
    figures = again.receipt("collect_preferences")["metrics"]
    assert (figures["judged"], figures["pairs"]) == (len(feedback), len(pairs))
    right = [row["gap"] > 0 for row in pairs if abs(row["gap"]) > 0.5]
    assert sum(right) > 0.9 * len(right) > 20


def test_corrections_are_preferred_to_what_they_correct(again):
    again.set("collect_preferences", kind="correction")
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    prompts = {row["prompt"]: row for row in read_table(again.folder / "data/prepared/prompts.parquet")}
    pairs = read_table(again.folder / "data/preferences.parquet")
    assert all(row["chosen"] == prompts[row["prompt"]]["solution"] != row["rejected"] for row in pairs)
    assert sum(row["gap"] > 0 for row in pairs) > 0.7 * len(pairs) > 20
    write_table(again.folder / "data/prepared/prompts.parquet", [row | {"solution": None} for row in prompts.values()])
    assert "needs prompts with a solution to write" in again.run("collect_preferences").stderr


def test_length_bias_and_disagreement_change_the_answers_and_not_the_truth(again, pairs):
    """A token more is worth three times as much as being right: the longer one is chosen, whatever the gap says."""
    again.set("collect_preferences", length_bias=3.0, annotators=3, disagreement=0.2)
    assert again.run("collect_preferences").code == 0
    biased = read_table(again.folder / "data/preferences.parquet")
    asked = [{row["prompt"], row["chosen"], row["rejected"]} for row in biased]
    assert asked == [{row["prompt"], row["chosen"], row["rejected"]} for row in pairs]
    unequal = [row for row in biased if len(row["chosen"]) != len(row["rejected"])]
    assert sum(len(row["chosen"]) > len(row["rejected"]) for row in unequal) > 0.9 * len(unequal) > 10
    assert {abs(row["gap"]) for row in biased} == {abs(row["gap"]) for row in pairs}
    figures = again.receipt("collect_preferences")["metrics"]
    assert figures["flip_rate"] == pytest.approx(sum(row["gap"] < 0 for row in biased) / len(biased), abs=1e-6)
    assert 0.5 < figures["annotator_agreement"] <= 1


def test_feedback_of_a_data_set_and_pairs_that_are_one_text(again):
    """Completions that only space tells apart imply a pair that is left out, and counted."""
    said = [("A: 1", 5.0), ("A: 2", 1.0), ("A: 2 ", 2.0)]
    rows = [
        {"id": f"q{n}", "prompt": f"left {n} Ask.\n", "completion": text, "kind": "rating", "value": value, "annotator": "ann"}
        | {"split": "test" if n < 2 else "train"}
        for n in range(6)
        for text, value in said
    ]
    write_table(again.folder / "data/prepared/feedback.parquet", rows)
    again.set("collect_preferences", source="dataset", kind="rating")
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    assert read_table(again.folder / "data/feedback.parquet") == rows
    pairs = read_table(again.folder / "data/preferences.parquet")
    assert {(row["chosen"], row["rejected"]) for row in pairs} == {("A: 1", "A: 2"), ("A: 1", "A: 2 ")}
    figures = again.receipt("collect_preferences")["metrics"]
    assert (figures["pairs"], figures["degenerate_pairs"], figures["test_pairs"]) == (12, 6, 4)
    again.set("collect_preferences", kind="thumbs")
    assert "names no feedback of kind thumbs" in again.run("collect_preferences").stderr
