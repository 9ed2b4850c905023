"""The stage reward_model beyond its default: other kinds of feedback, members that differ, terms beside the ranking."""

import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tasks.algorithms.reward_model import RewardModelConfig
from tasks.core.files import digest, read_json, read_table, write_table
from tasks.models.language import load_policy
from tasks.models.reward import load_ensemble, reward_model_from_policy, with_language_head
from tests.project import PARAMS

FEEDBACK = "data/feedback.parquet"


@pytest.fixture(scope="module")
def again(project, tmp_path_factory):
    """With rankings, ratings and thumbs on the same completions: right before "so", "so" before wrong."""
    again = project.copy(tmp_path_factory.mktemp("again") / "project")
    rows = []
    prompts = [row for row in read_table(again.folder / "data/prepared/prompts.parquet") if row["split"] == "train"]
    for number, row in enumerate(prompts):
        texts = {f"A: {row['answer']}": 3.0, "so": 2.0, f"A: {3 - int(row['answer'])}": 1.0}
        for text, rating in texts.items():
            one = {"id": row["id"], "prompt": row["prompt"], "completion": text, "annotator": "a"}
            one["split"] = "test" if number < 30 else "train"
            rows += [one | {"kind": "ranking", "value": 4 - rating}, one | {"kind": "rating", "value": rating}]
            rows += [one | {"kind": "thumbs", "value": float(rating == 3)}] if text != "so" else []
    write_table(again.folder / FEEDBACK, rows)
    return again


def trained(project, **values):
    project.set("reward_model", **PARAMS["reward_model"] | values)
    done = project.run("reward_model")
    assert done.code == 0, done.stderr
    history = read_json(project.folder / "reports/reward_model/history.json")
    return project.receipt("reward_model")["metrics"], history


@pytest.mark.parametrize(("loss", "learning_rate", "num_steps", "batch_size"), [
    ("all_pairs", 3e-3, 150, 24), ("plackett_luce", 3e-3, 150, 24), ("regression", 5e-3, 300, 12), ("binary", 3e-3, 150, 24),
])  # fmt: skip
def test_it_learns_from_judged_completions(again, loss, learning_rate, num_steps, batch_size):
    metrics, history = trained(again, loss=loss, learning_rate=learning_rate, num_steps=num_steps, batch_size=batch_size)
    assert metrics["feedback_agreement"] > 0.9
    assert metrics["feedback_pairs"] >= 90
    assert metrics["gold_correlation"] > 0.5
    assert history[-1][f"loss/{loss}"] < 0.8 * history[0][f"loss/{loss}"]


def test_feedback_of_another_kind_is_not_enough(again):
    path = again.folder / FEEDBACK
    rows = read_table(path)
    write_table(path, [row for row in rows if row["kind"] != "thumbs"])
    again.set("reward_model", **PARAMS["reward_model"] | {"loss": "binary"})
    done = again.run("reward_model")
    write_table(path, rows)
    assert done.code == 1
    assert "reward_model.loss is binary, but data/feedback.parquet has no thumbs of split train" in done.stderr


@pytest.fixture(scope="module")
def ensemble(again):
    return trained(again, num_steps=60, ensemble_size=2, process_coef=0.5, imitation_coef=0.01, margin_coef=0.5)


def test_the_members_are_folders_of_their_own_that_differ(again, ensemble):
    metrics, _ = ensemble
    folder = again.folder / "models/reward_model"
    first, second = (load_file(each / "model.safetensors") for each in (folder, folder / "member-2"))
    assert max((first[name] - second[name]).abs().max() for name in first) > 1e-3
    assert AutoModelForSequenceClassification.from_pretrained(folder / "member-2").config.score_std > 0
    assert len(load_ensemble(folder, "cpu")) == 2
    assert metrics["disagreement"] > 0.01
    assert 0.5 < metrics["ensemble_accuracy"] <= 1


def test_steps_are_learned_and_every_term_is_recorded(ensemble):
    metrics, history = ensemble
    assert history[-1].keys() >= {"loss/bradley_terry", "loss/imitation", "loss/process"}
    assert metrics["step_accuracy"] > metrics["step_majority"]
    assert metrics["step_auc"] > 0.8


def test_an_ensemble_is_resumed_to_the_same_bytes(again, ensemble):
    """The language model's head, which no output holds, comes back too: it shapes the backbone."""
    outputs = again.receipt("reward_model")["outs"]
    running = again.start("reward_model", REALIGN_CHECKPOINT_SECONDS="0")
    while not list(again.folder.glob(".scratch/reward_model/*/checkpoint.pt")):
        assert running.alive(), running.wait().stderr
        time.sleep(0.001)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    done = again.run("reward_model")
    assert done.code == 0, done.stderr
    assert "reward_model: resumes at step" in done.stdout
    assert {out: digest(again.folder / out) for out in outputs} == outputs


def test_a_policy_is_fined_for_uncertainty_and_paid_for_steps(again, ensemble):
    weights = {"reward_model": 1.0, "uncertainty": -0.5, "process": 2.0}
    again.set("reward", weights=weights)
    again.set("policy.grpo", num_steps=2)
    done = again.run("policy@grpo-0")
    assert done.code == 0, done.stderr
    for row in read_json(again.folder / "reports/policy/grpo-0/history.json"):
        expected = sum(weight * row[f"rollout/{name}_mean"] for name, weight in weights.items())
        assert row["rollout/score_mean"] == pytest.approx(expected, abs=1e-5)
        assert row["rollout/uncertainty_mean"] > 0
        assert 0 < row["rollout/process_mean"] < 1


@pytest.mark.parametrize(("name", "says"), [
    ("uncertainty", "set reward_model.ensemble_size to 2 or more"),
    ("process", "set reward_model.process_coef above 0"),
])  # fmt: skip
def test_a_component_that_the_reward_model_has_not(project, tmp_path, name, says):
    plain = project.copy(tmp_path / "project")
    plain.set("reward", weights={name: 1.0})
    done = plain.run("policy@grpo-0")
    assert done.code == 1
    assert says in done.stderr


@pytest.mark.parametrize(("values", "says"), [
    ({"loss": "binary", "margin_coef": 1.0}, "margin_coef belongs to pairs"),
    ({"loss": "plackett_luce", "imitation_coef": 1.0}, "imitation_coef belongs to pairs"),
    ({"loss": "regression", "process_coef": 1.0}, "process_coef belongs to pairs"),
    ({"source": "models/other", "imitation_coef": 1.0}, "imitation_coef needs a language model's head"),
    ({"source": "models/other", "num_steps": 0, "ensemble_size": 2}, "all members are the same"),
    ({"loss": "hinge"}, "bradley_terry"),
    ({"ensemble_size": 0}, "greater than 0"),
])  # fmt: skip
def test_what_cannot_be_combined(values, says):
    with pytest.raises(ValueError, match=says):
        RewardModelConfig(**PARAMS["reward_model"] | values)


def test_the_language_head_shares_the_backbone_and_keeps_what_it_knew(project):
    folder = project.folder / "models/sft"
    reward_model, (policy, tokenizer), (other, _) = (
        reward_model_from_policy(folder, "cpu"), load_policy(folder, "cpu"), load_policy(folder, "cpu"),
    )  # fmt: skip
    language_model = with_language_head(reward_model, other)
    ids = torch.tensor([tokenizer.encode("left ab Ask.\n")])
    torch.testing.assert_close(language_model(input_ids=ids).logits, policy(input_ids=ids).logits)
    names = {id(parameter) for parameter in reward_model.base_model.parameters()}
    assert {id(parameter) for parameter in language_model.base_model.parameters()} == names
    reward_model.base_model.embed_tokens.weight.data.zero_()
    assert language_model(input_ids=ids).logits.eq(0).all()  # the tied head is the shared embedding
