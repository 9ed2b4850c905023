"""Prompt-OIRL: the figures by hand, the log complete or refused, and a choice that really fits the query."""

import shutil

import numpy as np
import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.files import digest, read_json, read_table, write_table
from tasks.core.statistics import ece, paired_bootstrap
from tasks.models.language import load_policy
from tasks.models.text import encode_prompts
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.figures import figures
from tasks.prompt_oirl.finetune import FinetunedSelector, PromptReward
from tasks.prompt_oirl.fit import tables
from tasks.prompt_oirl.scores import bins, calibration, choice_rows
from tests.processes import REPO
from tests.project import ANSWERS, INSTRUCTIONS

PROMPTS = {"a": "A.", "b": "B."}
CORRECT = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])


def asked(right, calls=1):
    """A table of so many right answers of so many calls each."""
    right = np.asarray(right, dtype=float)
    return Answers([f"q{row}" for row in range(len(right))], PROMPTS, right, np.full(right.shape, float(calls)))


def judge(chances, answers, best=0):
    return figures(np.asarray(chances, dtype=float), answers, np.full(len(answers), best), seed=0)


@pytest.fixture(scope="module")
def log(project):
    return read_table(project.folder / "data/prompt_log.parquet")


@pytest.fixture(scope="module")
def reward(project):
    base, tokenizer = load_policy(project.folder / "models/base", "cpu")
    torch.manual_seed(0)
    model = PromptReward(base.base_model, base.config.hidden_size, 16, tokenizer.pad_token_id).eval()
    return model, tokenizer


def test_figures_by_hand():
    """Chosen: prompts 1, 2, 2, 2, right for three of four queries; the best single prompt is right for two."""
    result = judge([[0.9, 0.1], [0.4, 0.6], [0.2, 0.3], [0.1, 0.2]], asked(CORRECT))
    assert result["success"] == 0.75
    assert result["best_prompt_success"] == 0.5
    assert result["oracle_success"] == 0.75
    assert result["random_success"] == 0.5
    assert result["gain"] == 0.25
    assert result["gain_low"] <= 0.25 <= result["gain_high"]
    assert result["accuracy"] == 0.75  # of 8 pairs, [2, 0] and [2, 1] are called wrong
    assert result["auc"] == 13.5 / 16  # of 16 (right, wrong) pairs, 13 are in order and one ties


def test_auc_is_absent_where_all_pairs_are_alike():
    assert "auc" not in judge(np.full((2, 2), 0.5), asked(np.ones((2, 2))))


def test_the_interval_is_that_of_the_paired_bootstrap():
    """One call each: weighting by calls changes nothing."""
    chances = np.random.default_rng(0).random((50, 2))
    answers = asked(np.random.default_rng(1).integers(0, 2, (50, 2)))
    result = judge(chances, answers)
    differences = answers.right[np.arange(50), chances.argmax(1)] - answers.right[:, 0]
    assert (result["gain"], result["gain_low"], result["gain_high"]) == pytest.approx(paired_bootstrap(differences, 2000, 0))


def test_calibration_by_hand():
    """Two bins: three calls that promise .9 and two of which come, one that promises .3 and does not come."""
    low, high = bins(np.array([0.9, 0.9, 0.3]), np.array([1.0, 1.0, 0.0]), np.array([1.0, 2.0, 1.0]))
    assert (low["calls"], low["predicted"], low["right"]) == (1, pytest.approx(0.3), 0.0)
    assert (high["calls"], high["predicted"], high["right"]) == (3, pytest.approx(0.9), pytest.approx(2 / 3))
    assert high["right_low"] < 2 / 3 < high["right_high"]
    assert ece([low, high]) == pytest.approx((0.3 + 3 * (0.9 - 2 / 3)) / 4)


def test_certain_and_right_is_calibrated():
    errors, pairs = calibration(np.array([[0.0, 1.0], [1.0, 0.0]]), asked([[0, 1], [1, 0]]))
    assert errors == {"ece": 0.0, "choice_ece": 0.0}
    assert [row["calls"] for row in pairs] == [2, 2]


def test_a_call_that_was_repeated_counts_by_its_share():
    """One query, two prompts: right in 1 of 4 calls and in 3 of 4. Chosen is the second."""
    result = judge([[0.4, 0.6]], asked([[1, 3]], calls=4))
    assert (result["success"], result["best_prompt_success"], result["gain"], result["accuracy"]) == (0.75, 0.25, 0.5, 0.75)


def test_padding_changes_no_embedding(reward):
    model, tokenizer = reward
    texts = encode_prompts(tokenizer, ["left ab", "right a longer query than that", "x"])
    with torch.no_grad():
        together = model.embed(texts)
        alone = torch.cat([model.embed([ids]) for ids in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_pair_gets_its_own_score(reward):
    model, tokenizer = reward
    queries, prompts = encode_prompts(tokenizer, ["left ab", "right ab"]), encode_prompts(tokenizer, ["Go.", "Stop.", "Ask."])
    with torch.no_grad():
        table = model(queries, prompts)
        single = model([queries[1]], [prompts[2]])
    assert table.shape == (2, 3)
    torch.testing.assert_close(table[1, 2], single[0, 0], atol=1e-5, rtol=0)
    assert len(set(table.flatten().tolist())) == 6


def test_the_log_is_a_table_of_queries_by_prompts(log):
    training, test = tables(log)
    assert (training.rates.shape, test.rates.shape) == ((96, 3), (40, 3))
    assert list(training.prompts.items()) == list(test.prompts.items()) == list(INSTRUCTIONS.items())
    row = next(row for row in log if row["query"] == test.queries[5] and row["prompt_id"] == "stop")
    assert test.rates[5, 1] == float(row["correct"])


def test_a_log_with_a_hole_is_refused(log):
    hole = next(index for index, row in enumerate(log) if row["prompt_id"] == "stop")
    with pytest.raises(InputError, match=f"query {log[hole]['query_id']} has no answer under prompt stop"):
        tables(log[:hole] + log[hole + 1 :])
    seldom = [row for row in log if row["split"] == "train" or row["prompt_id"] != "stop"]
    with pytest.raises(InputError, match="has no answer under prompt stop"):
        tables(seldom)


def test_repeats_of_a_query_are_one_row_of_the_table(log):
    asked = next(row for row in log if row["split"] == "test")
    training, once = tables(log)
    _, test = tables([*log, asked | {"correct": not asked["correct"]}])
    assert test.queries == once.queries
    assert test.rates[0, 0] == 0.5
    assert (test.rates[1:] == once.rates[1:]).all()
    ids = {row["query"]: row["query_id"] for row in log}
    best = int(training.success.argmax())
    [first, *_] = choice_rows(np.repeat(np.eye(3)[:1], 40, axis=0), test, best, ids)
    assert (first["query_id"], first["right"], first["correct"]) == (asked["query_id"], 0.5, True)


def test_a_fitted_reward_comes_back_from_disk(reward, tmp_path):
    model, tokenizer = reward
    fitted = FinetunedSelector(INSTRUCTIONS, model, tokenizer, 32)
    fitted.save(tmp_path)
    again = FinetunedSelector.load(tmp_path)
    assert (sorted(again.prompt_ids), again.window) == (sorted(INSTRUCTIONS), 32)
    there = dict(zip(again.prompt_ids, again.probabilities(["left ab"])[0].tolist(), strict=True))
    assert there == pytest.approx(dict(zip(INSTRUCTIONS, fitted.probabilities(["left ab"])[0].tolist(), strict=True)))


@pytest.mark.parametrize("learner", ["mean", "kernel", "mlp", "trees"])
def test_learners_on_words_alone_find_the_best_prompts(project, tmp_path, learner):
    """Go for left, Stop for right; no model is loaded, and the stage needs none."""
    again = project.copy(tmp_path / "project")
    shutil.rmtree(again.folder / "models")
    again.set("prompt_oirl", encoder="tfidf.yaml", learner=learner)
    (again.folder / "tfidf.yaml").write_text((REPO / "data/encoders/tfidf.yaml").read_text())
    done = again.run("prompt_oirl")
    assert (done.code, done.stderr) == (0, "")
    metrics = read_json(again.folder / "reports/prompt_oirl/metrics.json")
    assert metrics["gain_low"] > 0
    assert metrics["success"] > 0.8
    assert again.client().get_registered_model("prompt_oirl").aliases.keys() == {"newest", "champion"}


def test_an_encoder_outside_the_repository_is_pinned(project, tmp_path):
    again = project.copy(tmp_path / "project")
    (again.folder / "encoder.yaml").write_text("encoder: {source: models/sft, revision: null, layers: 1}\n")
    again.set("prompt_oirl", encoder="encoder.yaml", learner="kernel")
    done = again.run("prompt_oirl")
    pin = digest(again.folder / "models/sft")
    assert (
        f"encoder.yaml: encoder.source: the folder models/sft is not pinned; if it is the right one, write `revision: {pin}`"
        in done.stderr
    )
    (again.folder / "encoder.yaml").write_text(f"encoder: {{source: models/sft, revision: {pin}, layers: 1}}\n")
    done = again.run("prompt_oirl")
    assert (done.code, done.stderr) == (0, "")
    (again.folder / "encoder.yaml").write_text("encoder: {source: null, revision: null, layers: null}\n")
    again.set("prompt_oirl", learner="finetune")
    assert "encoder.yaml names no model to fine-tune; set `prompt_oirl.learner` to mean," in again.run("prompt_oirl").stderr


def test_the_log_asks_every_query_once_under_every_prompt(project, log):
    assert {(row["query_id"], row["prompt_id"]) for row in log} == {
        (query_id, prompt_id) for query_id in {row["query_id"] for row in log} for prompt_id in INSTRUCTIONS
    }
    assert len(log) == project.receipt("collect_prompt_log")["metrics"]["calls"] == (96 + 40) * 3
    assert {row["split"] for row in log} == {"train", "test"}


def test_verdicts_in_the_log_are_those_of_the_completion(project, log):
    for row in log:
        said = row["completion"].rstrip()[-1:]
        assert row["correct"] == (said == ANSWERS[row["query"].split()[0]])
    successes = [row["correct"] for row in log if row["prompt_id"] == "go" and row["split"] == "train"]
    recorded = project.receipt("collect_prompt_log")["metrics"]["success.go"]
    assert recorded == pytest.approx(sum(successes) / len(successes), abs=1e-6)


def test_the_model_on_disk(project):
    folder = project.folder / "models/prompt_oirl"
    assert {file.name for file in folder.iterdir()} == {"encoder", "head.safetensors", "prompts.json", "reference.npz"}
    assert read_json(folder / "prompts.json") == INSTRUCTIONS
    assert (folder / "encoder/model.safetensors").exists()


def test_what_was_chosen_for_each_query(project):
    choices = read_table(project.folder / "reports/prompt_oirl/choices.parquet")
    metrics = read_json(project.folder / "reports/prompt_oirl/metrics.json")
    assert len(choices) == 40
    assert sum(row["correct"] for row in choices) / 40 == pytest.approx(metrics["success"], abs=1e-6)
    assert all(row["correct"] == (row["prompt_id"] in row["right_prompts"].split(", ")) for row in choices)
    prompts = read_table(project.folder / "reports/prompt_oirl/prompts.parquet")
    assert max(prompts, key=lambda row: row["train_success"])["test_success"] == pytest.approx(metrics["best_prompt_success"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_log_of_one_split_only(project, tmp_path, split):
    again = project.copy(tmp_path / "project")
    path = again.folder / "data/prompt_log.parquet"
    write_table(path, [row for row in read_table(path) if row["split"] != split])
    done = again.run("prompt_oirl")
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_query_beyond_the_window_is_refused(project, tmp_path):
    again = project.copy(tmp_path / "project")
    path = again.folder / "data/prompt_log.parquet"
    rows = read_table(path)
    longest = {"query": "left " * 40}
    write_table(path, [row | longest if row["query_id"] == rows[0]["query_id"] else row for row in rows])
    done = again.run("prompt_oirl")
    assert done.code == 1
    (line,) = done.stderr.splitlines()
    assert f"query {rows[0]['query_id']} is " in line
    assert (
        "tokens, the encoder reads 32; leave it out, or bring an encoder that reads more (base_model.max_position_embeddings)"
        in line
    )
    assert not (again.folder / "runs/prompt_oirl.json").exists()
    assert again.runs("prompt_oirl")[0].info.status == "FAILED"


def test_queries_without_answers_leave_nothing_to_learn(project, tmp_path):
    """The pipeline goes on, with an empty log, no figures and no model, and says so."""
    again = project.copy(tmp_path / "project")
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row | {"answer": None} for row in read_table(path)])
    collected, fitted = again.run("collect_prompt_log"), again.run("prompt_oirl")
    assert (collected.code, fitted.code) == (0, 0), collected.stderr + fitted.stderr
    assert "no answers to check" in collected.stdout
    assert read_table(again.folder / "data/prompt_log.parquet") == []
    assert read_json(again.folder / "reports/prompt_oirl/metrics.json") == {}
    assert [file.name for file in (again.folder / "models/prompt_oirl").iterdir()] == ["prompts.json"]
    assert again.receipt("prompt_oirl")["metrics"] == {}
