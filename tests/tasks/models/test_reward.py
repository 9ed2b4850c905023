"""The reward model is a plain sequence-classification folder: any tool that loads it gives a text the same score."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tasks.core.errors import InputError
from tasks.models.batch import PairSet, collate
from tasks.models.language import save_model
from tasks.models.reward import (
    as_read_by,
    check_padding,
    load_reward_model,
    raw_scores,
    reward_model_from_elsewhere,
    reward_model_from_policy,
    standardised_scores,
    state_values,
)
from tasks.models.text import encode_completion, encode_prompt
from tasks.models.tokenizer import train_tokenizer

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
    torch.testing.assert_close(standardised_scores(model, batch, model.tokenizer), (raw_scores(model, batch) - 0.5) / 2.0)


def test_a_loaded_reward_model_cannot_be_trained_by_accident(folder):
    assert not any(parameter.requires_grad for parameter in load_reward_model(folder, "cpu").parameters())


def test_the_value_after_the_last_token_is_the_raw_score(folder, tokenizer, batch):
    """Of a completion that went on, the next token is predicted from just that state."""
    model = load_reward_model(folder, "cpu")
    prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in TEXTS]
    longer = collate(prompts, [[*ids, 5] for ids in batch.completions()], tokenizer.pad_token_id, "cpu")
    values = state_values(model, longer)
    assert values.shape == longer.completion_ids.shape
    torch.testing.assert_close(values.gather(1, batch.lengths[:, None])[:, 0], raw_scores(model, batch))


def test_a_value_knows_neither_its_token_nor_the_later_ones_nor_its_neighbours(folder, tokenizer, batch):
    model = load_reward_model(folder, "cpu")
    values = state_values(model, batch)
    for row, ids in enumerate(batch.completions()):
        prompt = batch.prompt_ids[row][batch.prompt_mask[row] == 1].tolist()
        for t in range(len(ids)):
            alone = state_values(model, collate([prompt], [[*ids[:t], 5, 6]], tokenizer.pad_token_id, "cpu"))
            torch.testing.assert_close(alone[0, t], values[row, t], atol=1e-5, rtol=0)
    assert values.std() > 0.1


def test_values_of_a_new_head_are_zero_and_learn_everywhere(policy_folder, batch):
    critic = reward_model_from_policy(policy_folder, "cpu")
    assert state_values(critic, batch).eq(0).all()
    torch.nn.init.normal_(critic.score.weight)
    state_values(critic, batch).sum().backward()
    assert all(parameter.grad is not None for parameter in critic.parameters())


def test_scores_of_pairs_have_a_gradient_everywhere(policy_folder, tokenizer):
    model = reward_model_from_policy(policy_folder, "cpu")
    torch.nn.init.normal_(model.score.weight)
    pairs = PairSet([{"prompt": "two", "chosen": "apples", "rejected": "pears"}], tokenizer, "cpu")
    chosen, rejected = raw_scores(model, pairs.batch([0])).chunk(2)
    (chosen - rejected).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def elsewhere(folder, architecture="llama", num_labels=1, context=64, tokenizer=None):
    """A reward model as another tool would save it, with a tokenizer that cuts words elsewhere."""
    tokenizer = tokenizer or train_tokenizer(["apples pears 12 twelve apples and pears"] * 3, 300)
    shared = {
        "vocab_size": len(tokenizer), "initializer_range": 0.3, "num_labels": num_labels,
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(2)
    match architecture:
        case "llama":
            model = LlamaForSequenceClassification(LlamaConfig(max_position_embeddings=context, **shape, **shared))
        case "gpt2":
            model = GPT2ForSequenceClassification(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=context, **shared))
        case "roberta":
            model = RobertaForSequenceClassification(RobertaConfig(max_position_embeddings=context, **shape, **shared))
    model.config.score_mean, model.config.score_std = 0.5, 2.0
    save_model(model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_another_tokenizer_gives_the_score_of_the_text(tmp_path, tokenizer, batch, architecture):
    """Read directly, text by text and without padding, by the reward model's own tokenizer."""
    model = reward_model_from_elsewhere(str(elsewhere(tmp_path, architecture)), None, "cpu")
    own = model.tokenizer
    direct = []
    for prompt, completion in TEXTS:
        ids = torch.tensor([encode_prompt(own, prompt) + encode_completion(own, completion)])
        with torch.no_grad():
            direct.append((model(input_ids=ids).logits[0, 0] - 0.5) / 2.0)
    scores = standardised_scores(model, batch, tokenizer)
    torch.testing.assert_close(scores, torch.stack(direct), atol=1e-5, rtol=0)
    assert scores.std() > 0.05
    taken_for_its_own = standardised_scores(model, batch, model.tokenizer)  # there these ids mean other text
    assert not torch.allclose(scores, taken_for_its_own, atol=0.01)


def test_a_completion_that_was_cut_off_is_cut_off_there_too(tmp_path, tokenizer):
    model = reward_model_from_elsewhere(str(elsewhere(tmp_path)), None, "cpu")
    prompt, whole = encode_prompt(tokenizer, "two"), encode_completion(tokenizer, "apples and 12")
    read = as_read_by(model, collate([prompt] * 3, [whole, whole[:-1], whole[-1:]], tokenizer.pad_token_id, "cpu"), tokenizer)
    expected = encode_completion(model.tokenizer, "apples and 12")
    assert read.completions() == [expected, expected[:-1], [model.tokenizer.eos_token_id]]
    assert torch.isfinite(raw_scores(model, read)).all()


def test_the_same_vocabulary_is_not_read_again(folder, tokenizer, batch):
    model = load_reward_model(folder, "cpu")
    assert model.tokenizer is not tokenizer
    assert as_read_by(model, batch, tokenizer) is batch
    torch.testing.assert_close(standardised_scores(model, batch, tokenizer), standardised_scores(model, batch, model.tokenizer))


def test_a_pad_token_that_is_missing_is_added(tmp_path, tokenizer, batch):
    """Padding with end-of-text would read the score one token too early."""
    other = train_tokenizer(["apples pears"] * 3, 290)
    other.pad_token = other.eos_token
    model = reward_model_from_elsewhere(str(elsewhere(tmp_path, tokenizer=other)), None, "cpu")
    assert model.config.pad_token_id == model.tokenizer.pad_token_id != model.tokenizer.eos_token_id
    assert model.get_input_embeddings().num_embeddings >= len(model.tokenizer)
    check_padding(model, as_read_by(model, batch, tokenizer))


def test_a_language_model_is_no_reward_model(policy_folder):
    with pytest.raises(InputError, match=r"lacks score\.weight; a language model has no score head"):
        reward_model_from_elsewhere(str(policy_folder), None, "cpu")


@pytest.mark.parametrize("num_labels", [2, 5])
def test_a_classifier_of_several_labels_is_no_reward_model(tmp_path, num_labels):
    with pytest.raises(InputError, match=f"gives {num_labels} numbers for a text"):
        reward_model_from_elsewhere(str(elsewhere(tmp_path, num_labels=num_labels)), None, "cpu")


def test_a_completion_that_fills_a_longer_context_than_the_reward_models(tmp_path, tokenizer):
    """Rotary positions would extrapolate in silence, learned ones would crash."""
    model = reward_model_from_elsewhere(str(elsewhere(tmp_path, context=16)), None, "cpu")
    prompt = encode_prompt(tokenizer, "two")
    fits, fills = ([prompt], [[40] * 10]), ([prompt], [[40] * 40])
    assert len(standardised_scores(model, collate(*fits, 0, "cpu"), tokenizer)) == 1
    with pytest.raises(InputError, match="max_position_embeddings is 16; lower"):
        standardised_scores(model, collate(*fills, 0, "cpu"), tokenizer)


def test_an_architecture_that_counts_padding_as_positions_is_refused(tmp_path, tokenizer, batch):
    model = reward_model_from_elsewhere(str(elsewhere(tmp_path, "roberta")), None, "cpu")
    with pytest.raises(InputError, match="a roberta reward model"):
        check_padding(model, as_read_by(model, batch, tokenizer))
