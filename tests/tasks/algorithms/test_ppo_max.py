"""Each switch of PPO-max changes what it says and nothing else, alone and by params alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flows.engine.sweep.axes import read_set
from tasks.algorithms.ppo_max import PpoMaxConfig, pretraining_batches, standardise_head, train
from tasks.core.config import lookup
from tasks.core.errors import InputError
from tasks.core.files import read_json, write_table
from tasks.models.language import load_policy
from tasks.models.reward import load_reward_model
from tasks.models.text import TaskConfig
from tasks.rewards.scorer import load_scorer
from tasks.training.prompts import load_prompts
from tests.project import PARAMS
from tests.reference.ppo_max import ppo_max as slow_ppo_max

PLAIN = PARAMS["policy"]["ppo_max"] | {
    "score_normalization": False, "score_clip_range": None, "kl_coef": 0.0, "kl_level": "completion", "clip_range": None,
    "critic": "sft", "critic_warmup_steps": 0, "value_clip_range": None, "whiten_advantages": False, "max_grad_norm": None,
    "pretraining_coef": 0.0,
}  # fmt: skip
SMALL = PLAIN | {
    "num_steps": 2, "rollout_batch_size": 8, "group_size": 4, "num_epochs": 2, "batch_size": 8, "micro_batch_size": 4,
    "learning_rate": 5.0e-3, "value_learning_rate": 5.0e-3, "pretraining_batch_size": 2,
}  # fmt: skip
ON = [
    {"score_normalization": True}, {"score_clip_range": 0.3}, {"kl_coef": 2.0}, {"kl_coef": 2.0, "kl_level": "token"},
    {"clip_range": 0.01}, {"critic": "reward_model"}, {"critic_warmup_steps": 1}, {"value_clip_range": 0.01},
    {"whiten_advantages": True}, {"max_grad_norm": 0.02}, {"pretraining_coef": 0.5},
]  # fmt: skip


class Bench:
    """What train() asks of a stage, in memory: no tracker, no checkpoint."""

    name, variant, device, seed = "policy@ppo_max-0", "ppo_max-0", "cpu", 7

    def __init__(self, project, tmp_path, start=0):
        self.folder, self.written, self.start, self.history, self.policies = project.folder, tmp_path, start, [], []

    def params(self, config_class):
        return config_class.model_validate(lookup(PARAMS, config_class.namespace))

    def dep(self, path):
        return self.folder / path

    def out(self, path):
        return Path(self.written, path)

    def resume(self, **parts):
        self.parts = parts
        self.critic_at_start = {name: tensor.clone() for name, tensor in parts["critic"].state_dict().items()}

    def steps(self, total):
        return range(total)

    def log(self, step, values, samples=None):
        self.history.append({key: float(value) for key, value in values.items()})
        self.policies.append(torch.cat([tensor.flatten().clone() for tensor in self.parts["policy"].state_dict().values()]))

    def report(self, folder):
        pass


@pytest.fixture
def trained(project, tmp_path):
    """The bench after a short training with these params."""

    def run(**params):
        bench = Bench(project, tmp_path)
        train(PpoMaxConfig.model_validate(SMALL | params), bench)
        return bench

    return run


@pytest.fixture(scope="module")
def plain(project, tmp_path_factory):
    bench = Bench(project, tmp_path_factory.mktemp("plain"))
    train(PpoMaxConfig.model_validate(SMALL), bench)
    return bench


@pytest.fixture
def twin(project, tmp_path):
    def run(**params):
        bench = Bench(project, tmp_path)
        task = bench.params(TaskConfig)
        _, tokenizer = load_policy(project.folder / "models/sft", "cpu")
        scorer, prompts = load_scorer(bench, tokenizer, task), load_prompts(bench, tokenizer, "train")
        return slow_ppo_max(project.folder, bench.seed, task.max_new_tokens, scorer, prompts, SMALL | params)

    return run


def told_by(bench):
    """Its history without what the monitor adds."""
    return [{key: value for key, value in row.items() if not key.startswith(("rollout/", "alarm/"))} for row in bench.history]


def about(rows):
    return [pytest.approx(row, rel=2e-3, abs=2e-4) for row in rows]


def largest_gap(first, second):
    return max(abs(row[key] - other[key]) for row, other in zip(first, second, strict=True) for key in row)


def test_all_switches_off_is_the_plain_computation(plain, twin):
    assert told_by(plain) == about(twin())


@pytest.mark.parametrize("switch", ON, ids=lambda switch: "-".join(switch))
def test_a_switch_does_what_its_twin_does_and_nothing_else(trained, twin, plain, switch):
    bench = trained(**switch)
    assert told_by(bench) == about(twin(**switch))
    assert largest_gap(bench.history, plain.history) > 1e-2


@pytest.mark.parametrize("limit", ["score_clip_range", "clip_range", "max_grad_norm"])
def test_a_limit_that_is_off_is_one_that_is_never_reached(trained, plain, limit):
    """Bit for bit."""
    bench = trained(**{limit: 1e9})
    assert torch.equal(bench.policies[-1], plain.policies[-1])


def test_without_a_penalty_its_level_means_nothing(trained, plain):
    assert torch.equal(trained(kl_level="token").policies[-1], plain.policies[-1])


def test_in_the_warm_up_the_policy_stays_and_the_critic_learns(trained):
    bench = trained(num_steps=3, critic_warmup_steps=2, whiten_advantages=True, pretraining_coef=0.5)
    sft, _ = load_policy(bench.folder / "models/sft", "cpu")
    start = torch.cat([tensor.flatten() for tensor in sft.state_dict().values()])
    assert torch.equal(bench.policies[0], start)
    assert torch.equal(bench.policies[1], start)
    assert not torch.equal(bench.policies[2], start)
    assert [row["train/grad_norm"] > 0 for row in bench.history] == [False, False, True]
    assert all(row["value/grad_norm"] > 0 for row in bench.history)


def test_a_head_in_standard_units_gives_the_standardised_score():
    critic = SimpleNamespace(config=SimpleNamespace(score_mean=4.0, score_std=2.5), score=torch.nn.Linear(6, 1, bias=False))
    states = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0))
    expected = (critic.score(states) - 4.0) / 2.5
    standardise_head(critic)
    assert torch.allclose(critic.score(states), expected, atol=1e-6)
    assert len(list(critic.score.parameters())) == 2


def test_the_critic_starts_as_the_reward_model_or_with_a_head_of_zeros(trained, plain):
    reward_model = load_reward_model(plain.folder / "models/reward_model", "cpu").state_dict()
    critic = trained(critic="reward_model", num_steps=1).critic_at_start
    assert critic.keys() == reward_model.keys() | {"score.bias"}
    assert all(torch.equal(critic[name], reward_model[name]) for name in reward_model if not name.startswith("score."))
    assert plain.critic_at_start["score.weight"].eq(0).all()
    assert plain.history[0]["value/explained_variance"] == pytest.approx(0.0, abs=1e-6)


def test_the_corpus_goes_on_where_a_killed_run_had_stopped(project, tmp_path):
    """Two warm-up steps read nothing; then one batch per update."""
    config = PpoMaxConfig.model_validate(SMALL | {"num_steps": 9, "critic_warmup_steps": 2, "pretraining_coef": 1.0})
    policy, tokenizer = load_policy(project.folder / "models/sft", "cpu")
    texts = [f"so {number}" for number in range(9)]
    whole, resumed, warming_up = (
        pretraining_batches(texts, policy, tokenizer, config, Bench(project, tmp_path, start)) for start in (0, 5, 2)
    )
    first = [next(whole).completion_ids.tolist() for _ in range(9)]
    assert next(resumed).completion_ids.tolist() == first[3 * config.num_epochs]
    assert next(warming_up).completion_ids.tolist() == first[0]
    assert len({str(batch) for batch in first}) > 4


def test_equal_scores_are_no_reward(trained, monkeypatch):
    """Nothing to normalize by, nothing to whiten by, nothing for the critic to learn."""
    monkeypatch.setitem(PARAMS, "reward", PARAMS["reward"] | {"weights": {"verifier": 0.0}})
    bench = trained(score_normalization=True, whiten_advantages=True, missing_eos_penalty=0.0)
    assert [row["rollout/score_std"] for row in bench.history] == [0.0, 0.0]
    silent = ("loss/policy", "loss/value", "train/grad_norm", "value/grad_norm")
    assert [row[key] for row in bench.history for key in silent] == [0.0] * 8
    assert torch.isfinite(bench.policies[-1]).all()


def test_a_pretraining_gradient_needs_a_corpus(project, tmp_path):
    again = project.copy(tmp_path / "project")
    write_table(again.folder / "data/prepared/corpus.parquet", [])
    with pytest.raises(InputError, match="pretraining_coef needs a corpus"):
        train(PpoMaxConfig.model_validate(SMALL | {"pretraining_coef": 0.1}), Bench(again, tmp_path))
    train(PpoMaxConfig.model_validate(SMALL | {"num_steps": 1}), Bench(again, tmp_path))


def test_an_ablation_runs_by_params_alone(project, tmp_path):
    """Every switch off, in a real stage; and `flows.compare --set` can write each of the words."""
    again = project.copy(tmp_path / "project")
    again.set("policy.ppo_max", **PLAIN | {"num_steps": 3})
    done = again.run("policy@ppo_max-0")
    assert done.code == 0, done.stderr
    history = read_json(again.folder / "reports/policy/ppo_max-0/history.json")
    off = ("loss/pretraining", "policy/clip_fraction", "value/clip_fraction", "rollout/score_clip_fraction")
    assert [row[key] for row in history for key in off] == [0.0] * 12
    for words in ("score_normalization=true,false", "score_clip_range=null,3.0", "critic=reward_model,sft"):
        key, values = read_set(f"policy.ppo_max.{words}")
        for value in values:
            assert PpoMaxConfig.model_validate(PLAIN | {key.rpartition(".")[2]: value})
