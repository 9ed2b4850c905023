"""The reward model is a plain sequence-classification folder: any tool that loads it gives a text the same score."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tasks.models.batch import PairSet, collate
from tasks.models.language import save_model
from tasks.models.reward import load_reward_model, raw_scores, reward_model_from_policy, standardised_scores
from tasks.models.text import encode_completion, encode_prompt

TEXTS = [("two apples", "and 12 pears"), ("12", "apples"), ("two pears and two apples", "12")]


@pytest.fixture(scope="module")
def policy_folder(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folder(policy_folder, tokenizer, tmp_path_factory):
    """A reward model with a random head, as after training."""
    model = reward_model_from_policy(policy_folder, "cpu")
    torch.manual_seed(1)
    torch.nn.init.normal_(model.score.weight)
    model.config.score_mean, model.config.score_std = 0.5, 2.0
    folder = tmp_path_factory.mktemp("reward_model")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def batch(tokenizer):
    prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in TEXTS]
    completions = [encode_completion(tokenizer, completion) for _, completion in TEXTS]
    return collate(prompts, completions, tokenizer.pad_token_id, "cpu")


def test_a_plain_loader_scores_plain_text_the_same(folder, batch):
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = [tokenizer.bos_token + prompt + completion + tokenizer.eos_token for prompt, completion in TEXTS]
    plain = tokenizer(whole, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        theirs = model(input_ids=plain["input_ids"], attention_mask=plain["attention_mask"]).logits[:, 0]
        ours = raw_scores(load_reward_model(folder, "cpu"), batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours.std() > 0.1


def test_a_score_does_not_depend_on_the_padding(folder, batch):
    model = load_reward_model(folder, "cpu")
    together = raw_scores(model, batch)
    alone = []
    for row in range(len(TEXTS)):
        prompt = batch.prompt_ids[row][batch.prompt_mask[row] == 1].tolist()
        alone.append(raw_scores(model, collate([prompt], [batch.completions()[row]], 0, "cpu")))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_scores_start_at_zero(policy_folder, batch):
    assert raw_scores(reward_model_from_policy(policy_folder, "cpu"), batch).eq(0).all()


def test_standardised_scores_use_the_stored_figures(folder, batch):
    model = load_reward_model(folder, "cpu")
    torch.testing.assert_close(standardised_scores(model, batch), (raw_scores(model, batch) - 0.5) / 2.0)


def test_a_loaded_reward_model_cannot_be_trained_by_accident(folder):
    assert not any(parameter.requires_grad for parameter in load_reward_model(folder, "cpu").parameters())


def test_scores_of_pairs_have_a_gradient_everywhere(policy_folder, tokenizer):
    model = reward_model_from_policy(policy_folder, "cpu")
    torch.nn.init.normal_(model.score.weight)
    pairs = PairSet([{"prompt": "two", "chosen": "apples", "rejected": "pears"}], tokenizer, "cpu")
    chosen, rejected = raw_scores(model, pairs.batch([0])).chunk(2)
    (chosen - rejected).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
