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
    ("policy@grpo-0", "policy.grpo", {"clip_range": 0.2}, "did you mean `clip_range_low`?"),
    ("policy@grpo-0", "reward", {"weights": {"verifer": 1.0}}, "name some of reward_model, verifier"),
    ("policy@dpo-0", "policy.dpo", {"batch_size": 100_000}, "batch_size 100000 is larger than the data"),
    ("policy@kto-0", "policy.kto", {"batch_size": 100_000}, "batch_size 100000 is larger than the data"),
    ("policy@raft-0", "policy.raft", {"rollout_batch_size": 1024}, "larger than"),
    ("policy@rrhf-0", "policy.rrhf", {"rollout_batch_size": 1024}, "larger than"),
    ("policy@evolution_strategies-0", "policy.evolution_strategies", {"perturbed": "bias"}, "name contains 'bias'"),
    ("policy@dno-0", "policy.dno", {"min_margin": 0.99}, "differ by policy.dno.min_margin (0.99)"),
    ("policy@dagger-0", "policy.dagger", {"expert": "no/such/folder"}, "does not exist"),
    ("policy@dagger-0", "policy.dagger", {"expert": "models/base"}, "write `expert_revision: "),
    ("sft", "sft", {"learning_rate": "fast"}, "`sft.learning_rate` is 'fast'"),
    ("sft", "runtime", {"device": "cuda:99"}, "`runtime.device`"),
    ("sft", "runtime", {"threads": 0}, "`runtime.threads`"),
    ("base_model", "base_model", {"source": "no/such/folder"}, "does not exist"),
    ("base_model", "base_model", {"source": "models/sft"}, "models/sft is not pinned"),
    ("base_model", "base_model", {"source": "models/sft", "revision": "0" * 32}, "write `revision: "),
    ("base_model", "base_model", {"source": "owner/name"}, "revision"),
    ("base_model", "base_model", {"source": "owner/name", "revision": "0" * 40}, "owner/name"),
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
