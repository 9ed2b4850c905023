"""A judge as a reward: each completion against the SFT model's own, in both orders. In memory, on random models."""

import pytest
import torch
from safetensors.torch import load_file

from tasks.algorithms import rloo
from tasks.core.config import lookup
from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.models.batch import collate
from tasks.models.language import build_model, load_policy, save_model
from tasks.models.text import TaskConfig, encode_completions
from tasks.rewards.judge.reward import load_judge_reward
from tasks.training.prompts import load_prompts
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench, KilledError

JUDGED = {"reward": {"weights": {"judge": 2.0, "length_band": 0.5}}}


@pytest.fixture(scope="module")
def judging(random_models):
    """The judge is a random model of its own."""
    tokenizer = load_policy(random_models / "models/sft", "cpu")[1]
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = build_model(tokenizer, 5, max_position_embeddings=64, initializer_range=0.5, **shape)
    save_model(model, tokenizer, random_models / "random_judge")
    folder = (random_models / "random_judge").as_posix()
    return JUDGED | {"collect_preferences.judge": {"model": folder, "model_revision": digest(random_models / "random_judge")}}


def chance_of_first(judge, tokenizer, text):
    """P("1") against P("2"), one unpadded text and one verdict at a time."""
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    logprobs = []
    for verdict in "12":
        written = tokenizer(verdict if text[-1].isspace() else f" {verdict}", add_special_tokens=False)["input_ids"]
        total = 0.0
        for position, token in enumerate(written):
            logits = judge(torch.tensor([ids + written[:position]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
        logprobs.append(total)
    return float(torch.sigmoid(torch.tensor(logprobs[0] - logprobs[1])))


def greedy(model, tokenizer, ids):
    """The likeliest token, again and again."""
    written = []
    while len(written) < PARAMS["task"]["max_new_tokens"] and tokenizer.eos_token_id not in written:
        written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return tokenizer.decode(written, skip_special_tokens=True)


def written(tokenizer, prompts, completions):
    return collate(
        [prompt.ids for prompt in prompts], encode_completions(tokenizer, completions), tokenizer.pad_token_id, "cpu"
    )


def test_the_reward_is_the_mean_of_both_orders_against_the_sft_model(random_models, tmp_path, judging):
    bench = Bench(random_models, tmp_path, judging)
    reward = load_judge_reward(bench, bench.params(TaskConfig))
    sft, tokenizer = load_policy(random_models / "models/sft", "cpu")
    prompts = [prompt for prompt in load_prompts(bench, tokenizer, "train")[:3] for _ in range(2)]
    completions = ["A: 1", "so A: 2", "", "A: 2", "so so", "A: 1"]
    batch = written(tokenizer, prompts, completions)
    with torch.no_grad():
        expected = []
        for prompt, completion in zip(prompts, completions, strict=True):
            query, reference = prompt.text.removesuffix(" Ask.\n"), greedy(sft, tokenizer, prompt.ids).strip()
            shown = chance_of_first(reward.judge, tokenizer, f"{query}\n{completion}\n{reference}\n:")
            turned = chance_of_first(reward.judge, tokenizer, f"{query}\n{reference}\n{completion}\n:")
            expected.append(0.5 * shown + 0.5 * (1 - turned))
    assert reward(batch, completions) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.01


def test_the_sft_models_own_answer_is_worth_one_half(random_models, tmp_path, judging):
    bench = Bench(random_models, tmp_path, judging)
    reward = load_judge_reward(bench, bench.params(TaskConfig))
    prompts = load_prompts(bench, reward.tokenizer, "validation")[:4]
    references = reward.references([tuple(prompt.ids) for prompt in prompts])
    own = [references[tuple(prompt.ids)] for prompt in prompts]
    assert reward(written(reward.tokenizer, prompts, own), own) == pytest.approx([0.5] * 4, abs=1e-6)


def test_a_policy_that_is_paid_by_the_judge_is_resumed_to_the_byte(random_models, tmp_path, judging):
    """Its components, their shares and what they are alarmed by are those of every score."""
    values = {"num_steps": 4, "rollout_batch_size": 16, "group_size": 4, "batch_size": 16}
    config = rloo.RlooConfig.model_validate(lookup(PARAMS, "policy.rloo") | values)
    whole = Bench(random_models, tmp_path / "whole", judging)
    rloo.train(config, whole)
    with pytest.raises(KilledError):
        rloo.train(config, Bench(random_models, tmp_path / "killed", judging, killed_at=2))
    resumed = Bench(random_models, tmp_path / "killed", judging)
    rloo.train(config, resumed)
    assert resumed.start == 2
    assert resumed.history == whole.history[2:]
    weights, again = (load_file(each.written / "models/policy/any-0/model.safetensors") for each in (whole, resumed))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    for row in whole.history:
        parts = 2.0 * row["rollout/judge_mean"] + 0.5 * row["rollout/length_band_mean"]
        assert row["rollout/score_mean"] == pytest.approx(parts, abs=1e-5)
        assert 0 < row["rollout/judge_share"] < 1


@pytest.mark.parametrize(("changes", "says"), [
    ({"model": "gpt", "base_url": "http://localhost/v1"}, "too expensive and not reproducible; name a local model"),
    ({"rationale_tokens": 8}, "set collect_preferences.judge.rationale_tokens to 0"),
    ({"model": "sft", "templates": "long.yaml"}, r"takes \d+ tokens, it reads 32 at most"),
    ({"model": "judge_model"}, "was not trained: raise judge_model.num_steps"),
    ({"model_revision": None}, "is not pinned"),
])  # fmt: skip
def test_judges_that_pay_nobody(random_models, tmp_path, judging, changes, says):
    (random_models / "models/judge_model").mkdir(exist_ok=True)
    (random_models / "long.yaml").write_text(
        'judge: {preamble: "Say which of the two that follow is better than the other one, and say it now: ", exemplars: [], '
        'sample: "{query} {first} {second}", rationale: "", ending: ":"}\n'
    )
    bench = Bench(random_models, tmp_path, judging)
    bench.changed = judging | {"collect_preferences.judge": judging["collect_preferences.judge"] | changes}
    with pytest.raises(InputError, match=says):
        load_judge_reward(bench, bench.params(TaskConfig))
