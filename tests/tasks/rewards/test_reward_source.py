"""A reward model from elsewhere as a stage: pinned, kept as it is or trained further, with its own tokenizer to the end."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from tasks.core.files import digest, read_json
from tasks.models.language import save_model
from tasks.models.tokenizer import train_tokenizer

FOLDER = "models/elsewhere"


@pytest.fixture
def again(project, tmp_path):
    """With a small random reward model beside it, whose tokenizer knows other pieces than the policy's."""
    again = project.copy(tmp_path / "project")
    tokenizer = train_tokenizer(["left right Ask. A: so so 1 2"] * 3, 270)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=1, initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    save_model(LlamaForSequenceClassification(config), tokenizer, again.folder / FOLDER)
    return again


def take(project, folder=FOLDER, **values):
    values = {"source": folder, "revision": digest(project.folder / folder), "num_steps": 0} | values
    project.set("reward_model", **values)
    return project.run("reward_model")


def test_it_is_taken_as_it_is(again):
    done = take(again)
    assert done.code == 0, done.stderr
    own, saved = again.folder / FOLDER, again.folder / "models/reward_model"
    assert (saved / "model.safetensors").read_bytes() == (own / "model.safetensors").read_bytes()
    assert AutoTokenizer.from_pretrained(saved).get_vocab() == AutoTokenizer.from_pretrained(own).get_vocab()
    assert read_json(saved / "config.json")["score_std"] > 0
    figures = again.receipt("reward_model")["metrics"]
    assert figures.keys() >= {"accuracy", "gold_correlation", "score_mean"}
    assert not (again.folder / "reports/reward_model/history.json").exists()


def test_a_policy_is_trained_on_what_it_thinks_of_the_text(again):
    assert take(again).code == 0
    again.set("policy.grpo", num_steps=2)
    again.set("reward", weights={"reward_model": 1.0})
    done = again.run("policy@grpo-0")
    assert done.code == 0, done.stderr
    first = read_json(again.folder / "reports/policy/grpo-0/history.json")[0]
    assert abs(first["rollout/score_mean"]) < 1.0  # standardised on samples of the SFT model, which this policy still is
    assert 0.3 < first["rollout/score_std"] < 2.0


def test_it_can_be_trained_further(again):
    done = take(again, num_steps=100, learning_rate=1.0e-2)
    assert done.code == 0, done.stderr
    losses = [row["loss/bradley_terry"] for row in read_json(again.folder / "reports/reward_model/history.json")]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert digest(again.folder / "models/reward_model") != digest(again.folder / FOLDER)
    tokenizers = [AutoTokenizer.from_pretrained(again.folder / folder) for folder in ("models/reward_model", FOLDER)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


@pytest.mark.parametrize(("values", "says"), [
    ({"revision": None}, "is not pinned; if it is the right one, write `revision: "),
    ({"revision": "0" * 32}, "is not what "),
    ({"source": "no/such/folder"}, "does not exist"),
    ({"source": "owner/name", "revision": None}, "revision"),
    ({"source": "models/tokenizer"}, "not a model folder"),
    ({"source": "models/sft"}, "a language model has no score head"),
    ({"source": "sft"}, "the new head of the SFT model would give every text the score 0"),
])  # fmt: skip
def test_what_cannot_be_a_reward_model(again, values, says):
    folder = again.folder / values.get("source", FOLDER)
    pinned = {"revision": digest(folder)} if folder.is_dir() else {}
    before = digest(again.folder / "models/reward_model")
    done = take(again, **pinned | values)
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert digest(again.folder / "models/reward_model") == before
