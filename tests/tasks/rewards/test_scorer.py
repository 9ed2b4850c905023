"""Scores are the named weighted sum of the components, and what cannot be a score is refused."""

import pytest
import torch

from tasks.core.errors import InputError
from tasks.models.batch import pad
from tasks.models.generate import Rollout, sample
from tasks.models.language import load_policy
from tasks.models.reward import load_reward_model, standardised_scores
from tasks.models.text import decode, encode_completions, encode_prompts
from tasks.rewards.functions import FunctionsConfig, LengthBand, RewardConfig, Sentiment, length_band, sentiment
from tasks.rewards.scorer import Scorer

PROMPTS = ["left ab Ask.\n", "right ab Ask.\n"]
ANSWERS = ["1"] * 6 + ["2"] * 6
FUNCTIONS = FunctionsConfig(length_band=LengthBand(shortest=3, longest=3), sentiment=Sentiment(positive=["so"], negative=["a"]))


@pytest.fixture(scope="module")
def policy(project):
    return load_policy(project.folder / "models/sft", "cpu")


@pytest.fixture(scope="module")
def reward_model(project):
    return load_reward_model(project.folder / "models/reward_model", "cpu")


@pytest.fixture(scope="module")
def rollout(policy):
    model, tokenizer = policy
    chance = torch.Generator().manual_seed(0)
    ids = encode_prompts(tokenizer, PROMPTS)
    return sample(model, tokenizer, ids, max_new_tokens=8, temperature=1.0, generator=chance, group_size=6)


@pytest.fixture
def scorer(policy, reward_model):
    def make(**weights):
        return Scorer(RewardConfig(weights=weights, functions=FUNCTIONS), reward_model, policy[1], "number")

    return make


def written(tokenizer, texts):
    """A rollout of these completions, which all ended by themselves."""
    prompts, prompt_mask = pad(encode_prompts(tokenizer, PROMPTS[:1] * len(texts)), tokenizer.pad_token_id, left=True)
    ids, mask = pad(encode_completions(tokenizer, texts), tokenizer.pad_token_id, left=False)
    zeros = torch.zeros(ids.shape)
    return Rollout(prompts, prompt_mask, ids, mask, zeros, zeros, torch.ones(len(texts), dtype=torch.bool))


def test_the_score_is_the_weighted_sum(scorer, rollout):
    scores, components = scorer(verifier=0.25, reward_model=2.0)(rollout, ANSWERS)
    assert components.keys() == {"verifier", "reward_model"}
    torch.testing.assert_close(scores, 0.25 * components["verifier"] + 2.0 * components["reward_model"])
    assert 0 < components["verifier"].sum() < 12


def test_functions_of_the_text_are_components(scorer, policy, rollout):
    scores, components = scorer(sentiment=1.5, length_band=-1.0)(rollout, ANSWERS)
    texts = [decode(policy[1], ids) for ids in rollout.completions()]
    assert components["sentiment"].tolist() == pytest.approx([sentiment(text, FUNCTIONS) for text in texts])
    assert components["length_band"].tolist() == pytest.approx([length_band(text, FUNCTIONS) for text in texts])
    torch.testing.assert_close(scores, 1.5 * components["sentiment"] - components["length_band"])
    assert len(set(scores.tolist())) > 1


def test_components_come_in_the_order_of_the_params(scorer, rollout):
    """They are columns of a table: an order by chance would give other bytes."""
    order = ["sentiment", "reward_model", "length_band", "verifier"]
    for names in (order, order[::-1]):
        components = scorer(**dict.fromkeys(names, 1.0))(rollout, ANSWERS)[1]
        functions = [name for name in names if name in ("sentiment", "length_band")]
        assert [*components] == ["reward_model", *functions, "verifier"]


def test_the_reward_model_counts_standardised(scorer, reward_model, rollout):
    scores, components = scorer(reward_model=1.0)(rollout, ANSWERS)
    torch.testing.assert_close(scores, standardised_scores(reward_model, rollout, reward_model.tokenizer))
    assert "verifier" in components  # watched, though it has no weight


def test_one_answer_per_completion(scorer, rollout):
    right = scorer(verifier=1.0)(rollout, ANSWERS)[0]
    swapped = scorer(verifier=1.0)(rollout, ANSWERS[::-1])[0]
    assert torch.equal(right + swapped, torch.ones(12))  # the toy model answers 1 or 2


@pytest.mark.parametrize("weights", [{"verifer": 1.0}, {"verifier": 1.0, "length": 0.1}, {}])
def test_an_unknown_or_empty_reward_is_refused(scorer, weights):
    with pytest.raises(ValueError, match="name some of reward_model, verifier, uncertainty, process, judge, length_band"):
        scorer(**weights)


def test_prompts_without_answers(scorer, rollout):
    _, components = scorer(reward_model=1.0)(rollout, [None] * 12)
    assert components.keys() == {"reward_model"}
    with pytest.raises(InputError, match="no answers to check"):
        scorer(verifier=1.0)(rollout, [None] * 12)


def test_one_prompt_without_an_answer(scorer, rollout):
    """A mean over the others would be of other prompts than the score's."""
    _, components = scorer(sentiment=1.0)(rollout, [None, *ANSWERS[1:]])
    assert components.keys() == {"sentiment"}


def test_a_score_that_is_not_a_number_is_refused(project, policy, rollout):
    broken = load_reward_model(project.folder / "models/reward_model", "cpu")
    broken.score.weight.data.fill_(float("nan"))
    scorer = Scorer(RewardConfig(weights={"reward_model": 1.0}, functions=FUNCTIONS), broken, policy[1], "number")
    with pytest.raises(InputError, match="not a number"):
        scorer(rollout, ANSWERS)


def test_completions_without_a_word(scorer, policy):
    """Nothing but end-of-text: no answer, no words, no feeling, and still a score."""
    rollout = written(policy[1], ["", "A: 1", ""])
    scores, components = scorer(reward_model=1.0, verifier=1.0, length_band=1.0, sentiment=1.0)(rollout, ["1"] * 3)
    assert rollout.lengths.tolist()[::2] == [1, 1]
    assert components["verifier"].tolist() == [0.0, 1.0, 0.0]
    assert components["length_band"].tolist() == pytest.approx([0.0, 2 / 3, 0.0])
    assert components["sentiment"].tolist() == [0.5, 0.25, 0.5]
    assert torch.isfinite(scores).all()
    assert scores[0] == scores[2] < scores[1]


def test_scores_carry_no_gradient(scorer, rollout):
    assert not scorer(reward_model=1.0)(rollout, ANSWERS)[0].requires_grad


def test_shares_of_the_spread_by_hand(scorer):
    components = {"verifier": torch.tensor([0.0, 1.0]), "sentiment": torch.tensor([0.0, 0.5])}  # std 0.5 and 0.25
    assert scorer(verifier=1.0, sentiment=-2.0).shares(components) == {"verifier": 0.5, "sentiment": 0.5}
    assert scorer(verifier=3.0, sentiment=2.0).shares(components) == {"verifier": 0.75, "sentiment": 0.25}


def test_shares_where_nothing_spreads_or_nothing_competes(scorer):
    same, spread = torch.ones(4), torch.arange(4.0)
    assert scorer(verifier=1.0, sentiment=1.0).shares({"verifier": same, "sentiment": same}) == {"verifier": 0, "sentiment": 0}
    assert scorer(verifier=1.0).shares({"verifier": spread}) == {}
    assert scorer(verifier=1.0, sentiment=0.0).shares({"verifier": spread, "sentiment": spread}) == {}  # only watched
