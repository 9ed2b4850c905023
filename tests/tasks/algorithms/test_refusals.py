"""Bad input to a real stage: one clear sentence, exit code 1, nothing half-written."""

import shutil

import pytest

from tasks.core.files import digest, read_table, write_table
from tasks.models.language import load_policy, save_model
from tasks.models.reward import reward_model_from_policy
from tasks.models.tokenizer import train_tokenizer


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def refused(project, stage, *words):
    """Exactly one sentence on stderr, and no output has changed."""
    before = {folder: digest(project.folder / folder) for folder in ("models", "reports")}
    done = project.run(stage)
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    sentence = done.stderr.strip()
    assert sentence.startswith(stage)
    assert all(word in sentence for word in words), sentence
    assert before == {folder: digest(project.folder / folder) for folder in before}
    assert not (project.folder / f"runs/{stage}.json").exists()
    return True


@pytest.mark.parametrize(("stage", "namespace", "values", "says"), [
    ("policy@ppo-0", "policy.ppo", {"group_size": 5}, "rollout_batch_size (32) must be a multiple of group_size (5)"),
    ("policy@ppo-0", "policy.ppo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy@ppo-0", "policy.ppo", {"micro_batch_size": 6}, "batch_size (16) must be a multiple of micro_batch_size (6)"),
    ("policy@ppo-0", "policy.ppo", {"kl_estimator": "k3"}, "with this method it is always k1"),
    ("policy@ppo_max-0", "policy.ppo_max", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy@ppo_max-0", "policy.ppo_max", {"critic_warmup_steps": 25}, "(25) must be below num_steps (25)"),
    ("policy@ppo_max-0", "policy.ppo_max", {"critic": "base"}, "`policy.ppo_max.critic` is 'base'"),
    ("policy@ppo_max-0", "policy.ppo_max", {"clip_range": 0.0}, "`policy.ppo_max.clip_range` is 0.0"),
    ("policy@grpo-0", "policy.grpo", {"group_size": 1}, "at least 2 completions"),
    ("policy@grpo-0", "policy.grpo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy@grpo-0", "policy.grpo", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy@grpo-0", "policy.grpo", {"surrogate": "cispo", "max_ratio": 2.0}, "set max_ratio to null"),
    ("policy@grpo-0", "policy.grpo", {"surrogate": "cispo", "importance_level": "sequence_mean"}, "importance_level to token"),
    ("policy@grpo-0", "policy.grpo", {"max_ratio": 1.1}, "max_ratio (1.1) must be above 1 + clip_range_high"),
    ("policy@grpo-0", "policy.grpo", {"clip_range": 0.2}, "did you mean `clip_range_low`?"),
    ("policy@rloo-0", "policy.rloo", {"group_size": 1}, "at least 2 completions"),
    ("policy@rloo-0", "policy.rloo", {"batch_size": 24}, "rollout_batch_size (32) must be a multiple of batch_size (24)"),
    ("policy@rloo-0", "policy.rloo", {"importance_level": "token"}, "with this method it is always sequence_sum"),
    ("policy@reinforce-0", "policy.reinforce", {"group_size": 5}, "must be a multiple of group_size (5)"),
    ("policy@reinforce-0", "policy.reinforce", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy@reinforce-0", "policy.reinforce", {"kl_in": "loss"}, "`policy.reinforce.kl_in` is no choice"),
    ("policy@reinforce_baseline-0", "policy.reinforce_baseline", {"baseline_decay": 1.0}, "less than 1"),
    ("policy@grpo-0", "policy.grpo", {"kl_estimator": "k4"}, "'k1', 'k2' or 'k3'"),
    ("policy@grpo-0", "policy.grpo", {"kl_estimator": "k1"}, "kl_estimator k1 has no gradient in a loss"),
    ("policy@grpo-0", "policy.grpo", {"reduction": "mean"}, "`policy.grpo.reduction` is 'mean'"),
    ("policy@grpo-0", "policy.grpo", {"std_ep": 0.1}, "unknown key `policy.grpo.std_ep`; did you mean `std_eps`?"),
    ("policy@grpo-0", "reward", {"weights": {"verifer": 1.0}}, "name some of reward_model, verifier"),
    ("policy@dpo-0", "policy.dpo", {"beta": -0.1}, "`policy.dpo.beta` is -0.1; it should be greater than 0"),
    ("policy@dpo-0", "policy.dpo", {"batch_size": 100_000}, "batch_size 100000 is larger than the data"),
    ("policy@dpo_positive-0", "policy.dpo_positive", {"penalty_in": "reward"}, "'margin' or 'loss'"),
    ("policy@dpo_positive-0", "policy.dpo_positive", {"penalty_coef": -1.0}, "`policy.dpo_positive.penalty_coef` is -1.0"),
    ("policy@ipo-0", "policy.ipo", {"beta": 0.0}, "`policy.ipo.beta` is 0.0; it should be greater than 0"),
    ("policy@orpo-0", "policy.orpo", {"beta": 0.1}, "unknown key `policy.orpo.beta`"),
    ("policy@kto-0", "policy.kto", {"batch_size": 1}, "a completion that belongs to another prompt"),
    ("policy@kto-0", "policy.kto", {"batch_size": 100_000}, "batch_size 100000 is larger than the data"),
    ("policy@raft-0", "policy.raft", {"rollout_batch_size": 1024}, "larger than"),
    ("policy@raft-0", "policy.raft", {"group_size": 1}, "at least 2 completions to choose from"),
    ("policy@rrhf-0", "policy.rrhf", {"group_size": 1}, "at least 2 completions to rank"),
    ("policy@rrhf-0", "policy.rrhf", {"group_size": 8, "micro_batch_size": 4}, "micro_batch_size (4) must be a multiple of"),
    ("policy@rrhf-0", "policy.rrhf", {"rollout_batch_size": 1024}, "larger than"),
    ("policy@ilql-0", "policy.ilql", {"tau": 1.0}, "`policy.ilql.tau` is 1.0; it should be less than 1"),
    ("policy@ilql-0", "policy.ilql", {"polyak_rate": 0.0}, "`policy.ilql.polyak_rate` is 0.0; it should be greater than 0"),
    ("policy@evolution_strategies-0", "policy.evolution_strategies", {"population_size": 5}, "(5): it must be even"),
    ("policy@evolution_strategies-0", "policy.evolution_strategies", {"population_size": 10}, "of population_size (10)"),
    ("policy@evolution_strategies-0", "policy.evolution_strategies", {"perturbed": "bias"}, "name contains 'bias'"),
    ("policy@dno-0", "policy.dno", {"group_size": 1}, "at least 2 completions"),
    ("policy@dno-0", "policy.dno", {"rollout_batch_size": 30}, "must be a multiple of group_size (4)"),
    ("policy@dno-0", "policy.dno", {"min_margin": 0.99}, "differ by policy.dno.min_margin (0.99)"),
    ("policy@dagger-0", "policy.dagger", {"expert": "no/such/folder"}, "does not exist"),
    ("policy@dagger-0", "policy.dagger", {"expert": "models/base"}, "write `expert_revision: "),
    ("policy@dagger-0", "policy.dagger", {"batch_size": 64}, "(64) must be at most rollout_batch_size (32)"),
    ("policy@dagger-0", "policy.dagger", {"group_size": 5}, "must be a multiple of group_size (5)"),
    ("policy@gail-0", "policy.gail", {"expert": "solve"}, "'demonstrations' or 'solver'"),
    ("policy@gail-0", "policy.gail", {"group_size": 1}, "at least 2 completions"),
    ("policy@gail-0", "policy.gail", {"micro_batch_size": 5}, "must be a multiple of micro_batch_size (5)"),
    ("policy@gail-0", "policy.gail", {"discriminator_batch_size": 64}, "(64) must be at most rollout_batch_size (32)"),
    ("policy@maxent_irl-0", "policy.maxent_irl", {"group_size": 1}, "at least 2 completions"),
    ("policy@maxent_irl-0", "policy.maxent_irl", {"reward_batch_size": 3}, "(8) must be a multiple of reward_batch_size (3)"),
    ("policy@maxent_irl-0", "policy.maxent_irl", {"weight_temperature": 0.0}, "`policy.maxent_irl.weight_temperature` is 0.0"),
    ("sft", "sft", {"learning_rate": "fast"}, "`sft.learning_rate` is 'fast'"),
    ("sft", "runtime", {"device": "cuda:99"}, "`runtime.device`"),
    ("sft", "runtime", {"threads": 0}, "`runtime.threads`"),
    ("base_model", "base_model", {"source": "no/such/folder"}, "does not exist"),
    ("base_model", "base_model", {"source": "models/sft"}, "models/sft is not pinned"),
    ("base_model", "base_model", {"source": "models/sft", "revision": "0" * 32}, "write `revision: "),
    ("base_model", "base_model", {"source": "owner/name"}, "revision"),
    ("base_model", "base_model", {"source": "owner/name", "revision": "0" * 40}, "owner/name"),
    ("base_model", "base_model", {"num_attention_heads": 3}, "num_attention_heads"),
])  # fmt: skip
def test_params(again, stage, namespace, values, says):
    again.set(namespace, **values)
    assert refused(again, stage, says)


def test_a_prompt_longer_than_the_context(again):
    """Rotary positions would extrapolate in silence, learned ones would crash."""
    again.set("base_model", max_position_embeddings=8)
    assert again.run("base_model").code == 0
    assert refused(again, "sft", "max_position_embeddings")


@pytest.mark.parametrize(("stage", "missing"), [
    ("sft", "models/base"), ("sft", "reports/validate_data"), ("reward_model", "data/preferences.parquet"),
    ("policy@dpo-0", "reports/validate_preferences"), ("policy@ppo-0", "models/reward_model"),
])  # fmt: skip
def test_a_missing_dependency(again, stage, missing):
    path = again.folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert refused(again, stage, f"{missing} is missing; if a stage makes it")


@pytest.mark.parametrize(("stage", "table"), [
    ("base_model", "data/prepared/corpus.parquet"),
    ("sft", "data/prepared/demonstrations.parquet"),
    ("policy@dpo-0", "data/preferences.parquet"),
    ("policy@ilql-0", "data/preferences.parquet"),
    ("policy@grpo-0", "data/prepared/prompts.parquet"),
])  # fmt: skip
def test_an_empty_table(again, stage, table):
    write_table(again.folder / table, [])
    assert refused(again, stage)


@pytest.mark.parametrize(("split", "says"), [("train", "batch_size"), ("test", "no held-out pairs")])
def test_preferences_of_one_split_only(again, split, says):
    path = again.folder / "data/preferences.parquet"
    write_table(path, [row for row in read_table(path) if row["split"] != split])
    assert refused(again, "reward_model", says)


def test_a_critic_that_reads_by_another_tokenizer(again):
    """It would see the policy's ids as other text; the scorer, which reads the text, takes such a reward model."""
    path = again.folder / "models/reward_model"
    base = reward_model_from_policy(path, "cpu")
    other = train_tokenizer(["other text, other pieces of it"], 300)
    base.resize_token_embeddings(len(other))
    base.config.score_mean, base.config.score_std = 0.0, 1.0
    save_model(base, other, path)
    assert refused(again, "policy@ppo_max-0", "policy.ppo_max.critic", "set it to sft")


def test_no_validation_prompts_to_standardise_on(again):
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row for row in read_table(path) if row["split"] != "validation"])
    assert refused(again, "reward_model", "validation")


def test_prompts_without_answers_cannot_be_verified(again):
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row | {"answer": None} for row in read_table(path)])
    assert refused(again, "policy@grpo-0", "no answers to check")


@pytest.mark.parametrize(("stage", "says"), [
    ("policy@dagger-0", "has no `solution` that the solver could say; set `policy.dagger.expert` to a model"),
    ("policy@gail-0", "`policy.gail.expert` is solver, but no training prompt has a `solution`"),
])  # fmt: skip
def test_prompts_without_solutions_have_no_solver(again, stage, says):
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row | {"solution": None} for row in read_table(path)])
    assert refused(again, stage, says)


def test_demonstrations_of_other_instructions_only(again):
    path = again.folder / "data/prepared/demonstrations.parquet"
    write_table(path, [row for row in read_table(path) if row["instruction_id"] != "ask"])
    again.set("policy.maxent_irl", expert="demonstrations")
    assert refused(again, "policy@maxent_irl-0", "no demonstration answers the default instruction (`ask`)", "to solver")


def test_an_expert_over_other_tokens(again):
    """Its token ids would be labels for other text."""
    path = again.folder / "models/base"
    base, _ = load_policy(path, "cpu")
    other = train_tokenizer(["other text, other pieces of it"], 300)
    base.resize_token_embeddings(len(other))
    save_model(base, other, path)
    again.set("policy.dagger", expert="models/base", expert_revision=digest(path))
    assert refused(again, "policy@dagger-0", "the tokenizer of models/base is not that of models/sft")


@pytest.mark.parametrize("stage", ["sft", "policy@grpo-0"])
def test_a_loss_that_is_not_finite(again, stage):
    namespace = stage.removesuffix("-0").replace("@", ".")
    again.set(namespace, learning_rate=1.0e30)
    assert refused(again, stage, "loss/", "nan at step", f"lower `{namespace}.learning_rate`")
    (run,) = again.runs(stage)[:1]
    assert run.info.status == "FAILED"


def test_a_folder_that_is_no_model(again):
    again.set("base_model", source="models/tokenizer", revision=digest(again.folder / "models/tokenizer"))
    assert refused(again, "base_model", "not a model folder")


def test_a_model_with_another_tokenizer(again):
    train_tokenizer(["quite different words"], 290).save_pretrained(again.folder / "models/tokenizer")
    again.set("base_model", source="models/sft", revision=digest(again.folder / "models/sft"), num_steps=0)
    assert refused(again, "base_model", "set `prepare_data.tokenizer` to the same source")


def test_a_model_folder_is_taken_as_it_is(again):
    """base_model.source: a pinned folder, no further training: the same weights."""
    again.set("base_model", source="models/sft", revision=digest(again.folder / "models/sft"), num_steps=0)
    done = again.run("base_model")
    assert done.code == 0, done.stderr
    weights = [(again.folder / folder / "model.safetensors").read_bytes() for folder in ("models/base", "models/sft")]
    assert weights[0] == weights[1]
