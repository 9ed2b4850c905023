"""Evaluation: figures by hand on written answers, and the metrics file that `dvc metrics show` reads."""

import math
from dataclasses import replace

import pytest

from tasks.core import seeds
from tasks.core.config import lookup, read_params
from tasks.core.files import read_json, read_table, write_json, write_table
from tasks.evaluation.answers import Answers
from tasks.evaluation.evaluate import EvaluateConfig, against, distinct_bigrams, figures_of
from tasks.evaluation.harmless import HarmlessConfig
from tasks.evaluation.tables import completion_rows, kind_rows, matrix_rows
from tasks.models.beam import beam_search
from tasks.models.generate import sample
from tasks.models.language import load_policy
from tasks.models.text import decode, encode_prompts
from tasks.training.prompts import Prompt
from tests.project import ALGORITHMS

PROMPTS = [Prompt("a", "left", [], "1"), Prompt("b", "right", [], "2"), Prompt("c", "left", [], "1"), Prompt("d", "x", [], "3")]
SFT = Answers(
    greedy=["A: 1", "A: 1", "A: 2", "A: 3"],
    sampled=[["A: 1", "A: 2"], ["so A: 2", "A: 1"], ["none", "A: 2"], ["A: 3", "A: 3"]],
    greedy_scores=[0.1, 0.2, 0.3, 0.4], sampled_scores=[[0.0, 2.0], [2.0, 2.0], [3.0, 3.0], [5.0, 3.0]],
    kl=[0.0] * 4, base_nll=[4.0, 4.0, 2.0, 1.0],
    entropy=[1.0, 2.0, 2.0, 0.5], lengths=[3, 4, 1, 3], finished=[True, True, False, True],
)  # fmt: skip
POLICY = Answers(
    greedy=["A: 1", "A: 2", "A: 1", "A: 4"], sampled=[["A: 1", "A: 1"], ["A: 2", "A: 2"], ["A: 1", "A: 1"], ["A: 4", "A: 3"]],
    greedy_scores=[0.1, 0.3, 0.2, 0.5], sampled_scores=[[1.0, 1.0]] * 4, kl=[0.5, 1.5, 1.0, 1.0], base_nll=[3.0] * 4,
    entropy=[0.3] * 4, lengths=[3] * 4, finished=[True] * 4,
)  # fmt: skip


def config(judge="verifier"):
    harmless = HarmlessConfig(judge=None, judge_revision=None, judge_label=None, requests="data/requests.yaml")
    return EvaluateConfig(
        num_prompts=4, num_beams=1, samples_per_prompt=2, judge=judge, bootstrap_samples=500, text_metrics=[], harmless=harmless
    )


def test_figures_of_a_model_by_hand():
    figures = figures_of(SFT, PROMPTS, config(), "number", seed=0)
    assert figures["accuracy"] == 0.5
    assert figures["sampled_accuracy"] == 0.5  # of two samples 1, 1, 0 and 2 are right
    assert 0 < figures["sampled_accuracy_low"] < 0.5 < figures["sampled_accuracy_high"] < 1
    assert figures["perplexity"] == pytest.approx(math.exp(11 / 11))  # 11 nats, 11 tokens
    assert figures["entropy"] == 0.5  # 5.5 nats, 11 tokens
    assert figures["accuracy_low"] < 0.5 < figures["accuracy_high"]
    assert (figures["score"], figures["length"], figures["eos_rate"]) == (2.5, 2.75, 0.75)
    assert figures["distinct_bigrams"] == 1.0


def test_a_win_counts_one_and_a_tie_half():
    """By the verifier, of the two samples of each prompt: tie and win, win and tie, two wins, loss and tie."""
    figures = against(SFT, POLICY, PROMPTS, config(), "number", seed=0)
    assert figures["win_rate"] == (0.75 + 0.75 + 1 + 0.25) / 4
    assert figures["win_rate_low"] < figures["win_rate"] < figures["win_rate_high"]
    assert figures["accuracy_p"] == 0.5  # of three that differ at least two are won: 4 of 8 ways
    assert figures["sampled_accuracy_p"] == 0.25  # the four differ by +1, +1, +2 and -1: 4 of 16 ways are as good
    assert figures["kl"] == 1.0
    assert figures["kl_low"] < 1.0 < figures["kl_high"]


def test_the_reward_model_as_judge():
    """By the score, of the two samples of each prompt: win and loss, win and tie, two losses, loss and win."""
    policy = replace(POLICY, sampled_scores=[[1.0, 1.0], [3.0, 2.0], [1.0, 1.0], [4.0, 4.0]])
    assert against(SFT, policy, PROMPTS, config("reward_model"), "number", seed=0)["win_rate"] == (0.5 + 0.75 + 0 + 0.5) / 4


def test_a_model_against_itself_is_even():
    figures = against(SFT, SFT, PROMPTS, config(), "number", seed=0)
    assert (figures["win_rate"], figures["win_rate_low"], figures["win_rate_high"]) == (0.5, 0.5, 0.5)


def test_without_answers_there_is_no_accuracy():
    unanswered = [Prompt(prompt.id, prompt.text, [], None) for prompt in PROMPTS]
    assert not {"accuracy", "sampled_accuracy"} & figures_of(SFT, unanswered, config(), "number", seed=0).keys()
    assert "accuracy_p" not in against(SFT, POLICY, unanswered, config("reward_model"), "number", seed=0)


@pytest.mark.parametrize(("texts", "share"), [
    (["a b a b"], 2 / 3),  # ab, ba, ab
    (["a b", "a b"], 1 / 2),
    (["a", ""], 0.0),
    (["a b c", "d e f"], 1.0),
])  # fmt: skip
def test_distinct_bigrams(texts, share):
    assert distinct_bigrams(texts) == pytest.approx(share)


def test_rows_to_read():
    rows = completion_rows({"sft": SFT, "policy.ppo.0": POLICY}, PROMPTS, "number")
    assert [row["model"] for row in rows[:2]] == ["sft", "policy.ppo.0"]
    assert [row["correct"] for row in rows if row["model"] == "policy.ppo.0"] == [True, True, True, False]
    assert [(row["samples_right"], row["samples"]) for row in rows if row["model"] == "sft"] == [(1, 2), (1, 2), (0, 2), (2, 2)]
    assert len(rows) == 8


def test_right_answers_by_kind_of_problem():
    kinds = ["one", "two", "one", "two"]
    prompts = [replace(prompt, kind=kind) for prompt, kind in zip(PROMPTS, kinds, strict=True)]
    rows = kind_rows({"sft": SFT, "policy.ppo.0": POLICY}, prompts, "number", 200, seed=0)
    found = {(row["model"], row["kind"]): (row["accuracy"], row["sampled_accuracy"], row["prompts"]) for row in rows}
    assert found == {
        ("sft", "one"): (0.5, 0.25, 2), ("sft", "two"): (0.5, 0.75, 2),
        ("policy.ppo.0", "one"): (1.0, 1.0, 2), ("policy.ppo.0", "two"): (0.5, 0.75, 2),
    }  # fmt: skip
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    assert kind_rows({"sft": SFT}, PROMPTS, "number", 200, seed=0) == []  # whose data names no kinds


def test_each_model_against_each():
    """SFT loses one sample of the first prompt, one of the second, two of the third, and wins one of the last. Its copy is even
    with it. Holm multiplies the smallest p by three."""
    models = {"sft": SFT, "policy.ppo.0": POLICY, "policy.copy.0": SFT}
    rows = matrix_rows(models, PROMPTS, "verifier", "number", 200, seed=0)
    assert [(row["model"], row["against"], row["win_rate"]) for row in rows] == [
        ("sft", "policy.ppo.0", 0.3125), ("sft", "policy.copy.0", 0.5), ("policy.ppo.0", "policy.copy.0", 0.6875),
    ]  # fmt: skip
    assert [row["p"] for row in rows] == pytest.approx([0.5, 1.0, 0.5])
    assert [row["p_holm"] for row in rows] == [1.0] * 3
    sure = replace(POLICY, sampled_scores=[[6.0, 6.0]] * 4)
    rows = matrix_rows({"sft": SFT, "sure": sure, "copy": SFT}, PROMPTS, "reward_model", "number", 200, seed=0)
    assert [(row["win_rate"], row["p"], row["p_holm"]) for row in rows] == [(0, 0.125, 0.375), (0.5, 1, 1), (1, 0.125, 0.375)]


def test_the_metrics_file_of_the_project(project):
    metrics = read_json(project.folder / "reports/metrics.json")
    assert metrics.keys() == {"contaminated", "sft", "control", "reward_model", "prompt_oirl", "policy"}
    assert metrics["contaminated"] == 0
    assert metrics["control"]["cool_sft"]["entropy"] < metrics["sft"]["entropy"]
    assert metrics["reward_model"] == project.receipt("reward_model")["metrics"]
    assert metrics["prompt_oirl"] == project.receipt("prompt_oirl")["metrics"]
    assert metrics["policy"].keys() == set(ALGORITHMS)
    for algorithm in ALGORITHMS:
        figures = metrics["policy"][algorithm]["0"]
        assert figures.keys() >= {"accuracy", "win_rate", "win_rate_low", "win_rate_high", "kl", "kl_low", "kl_high"}
        assert all(math.isfinite(value) for value in figures.values())
        for figure in ("accuracy", "win_rate", "kl"):
            assert figures[f"{figure}_low"] <= figures[figure] <= figures[f"{figure}_high"]
    assert project.receipt("evaluate")["metrics"]["policy.ppo.0.kl"] == metrics["policy"]["ppo"]["0"]["kl"]


def test_all_models_answer_the_same_prompts(project):
    rows = read_table(project.folder / "reports/evaluate/completions.parquet")
    by_model = {model: [row["id"] for row in rows if row["model"] == model] for model in {row["model"] for row in rows}}
    assert by_model.keys() == {"sft", *(f"policy.{algorithm}.0" for algorithm in ALGORITHMS)}
    assert len({tuple(ids) for ids in by_model.values()}) == 1
    tests = read_table(project.folder / "data/prepared/prompts.parquet")
    assert by_model["sft"] == [row["id"] for row in tests if row["split"] == "test"][:40]


def test_what_the_policies_gained_is_told_as_it_is(project):
    """Accuracies in the file are those of the completions in the table."""
    metrics = read_json(project.folder / "reports/metrics.json")
    rows = read_table(project.folder / "reports/evaluate/completions.parquet")
    for algorithm in ALGORITHMS:
        verdicts = [row["correct"] for row in rows if row["model"] == f"policy.{algorithm}.0"]
        assert metrics["policy"][algorithm]["0"]["accuracy"] == pytest.approx(sum(verdicts) / len(verdicts), abs=1e-6)
        right = [row["samples_right"] / row["samples"] for row in rows if row["model"] == f"policy.{algorithm}.0"]
        assert metrics["policy"][algorithm]["0"]["sampled_accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-6)


def test_perplexity_is_that_of_the_base_model(project):
    """The same samples again, each put through models/base by itself, without padding."""
    import torch

    sft, tokenizer = load_policy(project.folder / "models/sft", "cpu")
    base, _ = load_policy(project.folder / "models/base", "cpu")
    rows = read_table(project.folder / "data/prepared/prompts.parquet")
    prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows if row["split"] == "test"][:40])
    noise = seeds.generator(seeds.derive(0, "evaluate"), "test samples", 0)
    sampled = sample(sft, tokenizer, prompts, max_new_tokens=8, temperature=1.0, generator=noise, group_size=2).completions()
    nll, tokens = 0.0, 0
    for prompt, completion in zip(prompts, sampled[::2], strict=True):
        with torch.no_grad():
            logprobs = torch.log_softmax(base(torch.tensor([prompt + completion])).logits[0], -1)
        nll -= sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(completion))
        tokens += len(completion)
    found = read_json(project.folder / "reports/metrics.json")["sft"]
    assert found["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert found["length"] == pytest.approx(tokens / 40, abs=1e-6)


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def test_contamination_is_told(again):
    write_json(again.folder / "reports/validate_data/verdict.json", {"passed": True, "contaminated": True})
    assert again.run("evaluate").code == 0
    assert read_json(again.folder / "reports/metrics.json")["contaminated"] == 1


def test_no_answers_to_verify(again):
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row | {"answer": None} for row in read_table(path)])
    before = (again.folder / "reports/metrics.json").read_bytes()
    done = again.run("evaluate")
    assert done.code == 1
    assert done.stderr == ("evaluate: the test prompts have no answers to verify; set `evaluate.judge` to reward_model\n")
    assert (again.folder / "reports/metrics.json").read_bytes() == before
    again.set("evaluate", judge="reward_model")
    assert again.run("evaluate").code == 0
    assert "accuracy" not in read_json(again.folder / "reports/metrics.json")["sft"]


def test_no_test_prompts(again):
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row for row in read_table(path) if row["split"] != "test"])
    done = again.run("evaluate")
    assert done.code == 1
    assert done.stderr.startswith("evaluate: no test prompts")


def test_a_policy_that_is_missing(again):
    again.set("policy", seeds=[0, 1])
    done = again.run("evaluate")
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "models/policy/ppo-1" in done.stderr


def test_with_beams_what_beam_search_finds_is_judged(project, tmp_path):
    again = project.copy(tmp_path / "project")
    again.set("policy", algorithms=["dpo"])
    again.set("evaluate", num_beams=3)
    done = again.run("evaluate")
    assert done.code == 0, done.stderr
    model, tokenizer = load_policy(again.folder / "models/sft", "cpu")
    rows = [row for row in read_table(again.folder / "reports/evaluate/completions.parquet") if row["model"] == "sft"]
    asked = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    found = beam_search(model, tokenizer, asked, lookup(read_params(again.folder / "params.yaml"), "task")["max_new_tokens"], 3)
    assert [row["completion"] for row in rows] == [decode(tokenizer, ids) for ids in found]
