"""Prompt-OIRL: the figures by hand, the log complete or refused, and a choice that really fits the query."""

import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.files import read_json, read_table, write_table
from tasks.models.language import load_policy
from tasks.models.text import encode_prompts
from tasks.prompt_oirl.fit import Log, PromptReward, auc, figures
from tests.project import ANSWERS, INSTRUCTIONS

CORRECT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
TRAINING = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # the first prompt is the best single one


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
    chances = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.3], [0.1, 0.2]])
    result = figures(chances, CORRECT, TRAINING, seed=0)
    assert result["success"] == 0.75
    assert result["best_prompt_success"] == 0.5
    assert result["oracle_success"] == 0.75
    assert result["random_success"] == 0.5
    assert result["gain"] == 0.25
    assert result["gain_low"] <= 0.25 <= result["gain_high"]
    assert result["accuracy"] == 0.75  # of 8 pairs, [2, 0] and [2, 1] are called wrong
    assert result["auc"] == 13.5 / 16  # of 16 (right, wrong) pairs, 13 are in order and one ties


def test_auc_counts_pairs():
    """3 of 4 (right, wrong) pairs are in order; a tie counts half."""
    assert auc(torch.tensor([0.9, 0.3, 0.5, 0.1]).numpy(), torch.tensor([1.0, 1.0, 0.0, 0.0]).numpy()) == 0.75
    assert auc(torch.tensor([0.5, 0.5]).numpy(), torch.tensor([1.0, 0.0]).numpy()) == 0.5


def test_the_best_prompt_is_chosen_on_training_queries():
    """On the test queries the second prompt would be best; peeking is not allowed."""
    correct = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert figures(torch.full((2, 2), 0.5), correct, TRAINING, seed=0)["best_prompt_success"] == 0.0


def test_auc_is_absent_where_all_pairs_are_alike():
    assert "auc" not in figures(torch.full((2, 2), 0.5), torch.ones(2, 2), TRAINING, seed=0)


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


def test_the_log_is_a_table_of_queries_by_prompts(log, reward):
    table = Log([row for row in log if row["split"] == "test"], list(INSTRUCTIONS), reward[1])
    assert table.correct.shape == (40, 3)
    row = next(row for row in log if row["query_id"] == table.query_ids[5] and row["prompt_id"] == "stop")
    assert table.correct[5, 1].item() == float(row["correct"])
    assert table.queries[5] == row["query"]


def test_a_log_with_a_hole_is_refused(log, reward):
    hole = next(index for index, row in enumerate(log) if row["prompt_id"] == "stop")
    with pytest.raises(InputError, match=f"query {log[hole]['query_id']} has no answer under prompt stop"):
        Log(log[:hole] + log[hole + 1 :], list(INSTRUCTIONS), reward[1])


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
    assert {file.name for file in folder.iterdir()} == {"encoder", "head.safetensors", "prompts.json"}
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
