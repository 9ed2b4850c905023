"""What each algorithm leaves: a plain Hugging Face folder, a receipt, the metrics its docstring promises, an MLflow run."""

import importlib
import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tasks.core.files import digest, read_json, read_table
from tests.project import ALGORITHMS, PARAMS, STAGES

POLICIES = [f"policy@{algorithm}-0" for algorithm in ALGORITHMS]
MODELS = {"base_model": "models/base", "sft": "models/sft", "judge_model": "models/judge_model"}
MODELS |= {p: f"models/policy/{p.partition('@')[2]}" for p in POLICIES}
MONITOR = {
    "rollout/score_mean", "rollout/score_std", "rollout/verifier_mean", "rollout/reward_model_mean", "rollout/kl_mean",
    "rollout/entropy", "rollout/completion_length", "rollout/eos_rate", "rollout/verifier_share", "rollout/reward_model_share",
    "rollout/ref_perplexity", "rollout/repetition", "rollout/tokens",
}  # fmt: skip
PROBE = MONITOR - {"rollout/tokens"}  # of what is trained on recorded data
RECORDED = {"dpo", "dpo_positive", "ipo", "orpo", "kto", "ilql"}
PROBED = RECORDED | {"gail", "maxent_irl"}  # these sample for the demonstrations' prompts
HISTORY = {
    "base_model": {"loss/nll", "train/grad_norm"},
    "sft": {"loss/nll", "train/grad_norm"},
    "judge_model": {"loss/cross_entropy", "train/accuracy", "train/grad_norm"},
    "reward_model": {"loss/bradley_terry", "train/accuracy"},
    "policy@ppo-0": MONITOR | {
        "loss/policy", "loss/value", "policy/approx_kl", "policy/clip_fraction", "value/explained_variance", "train/grad_norm",
    },
    "policy@ppo_max-0": MONITOR | {
        "loss/policy", "loss/value", "loss/pretraining", "policy/approx_kl", "policy/clip_fraction", "value/clip_fraction",
        "value/explained_variance", "value/grad_norm", "rollout/score_clip_fraction", "train/grad_norm",
    },
    "policy@reinforce-0": MONITOR | {"loss/policy", "train/grad_norm"},
    "policy@reinforce_baseline-0": MONITOR | {"loss/policy", "policy/baseline", "train/grad_norm"},
    "policy@rloo-0": MONITOR | {"loss/policy", "policy/approx_kl", "policy/clip_fraction", "train/grad_norm"},
    "policy@grpo-0": MONITOR | {
        "loss/policy", "loss/kl", "policy/approx_kl", "policy/clip_fraction", "policy/zero_std_fraction", "train/grad_norm",
    },
    "policy@dpo-0": PROBE | {
        "loss/dpo", "train/accuracy", "train/margin", "train/chosen_logratio", "train/rejected_logratio", "train/grad_norm",
    },
    "policy@dpo_positive-0": PROBE | {
        "loss/dpo_positive", "train/accuracy", "train/margin", "train/penalty", "train/chosen_logratio",
        "train/rejected_logratio", "train/grad_norm",
    },
    "policy@ipo-0": PROBE | {
        "loss/ipo", "train/accuracy", "train/margin", "train/chosen_logratio", "train/rejected_logratio", "train/grad_norm",
    },
    "policy@orpo-0": PROBE | {
        "loss/nll", "loss/odds_ratio", "train/accuracy", "train/log_odds_ratio", "train/chosen_logprob",
        "train/rejected_logprob", "train/grad_norm",
    },
    "policy@kto-0": PROBE | {
        "loss/kto", "train/kl_baseline", "train/accuracy", "train/margin", "train/chosen_logratio", "train/rejected_logratio",
        "train/grad_norm",
    },
    "policy@raft-0": MONITOR | {"rollout/best_score_mean", "loss/nll", "train/grad_norm"},
    "policy@rrhf-0": MONITOR | {
        "rollout/best_score_mean", "loss/ranking", "loss/nll", "train/misranked", "train/grad_norm",
    },
    "policy@ilql-0": PROBE | {
        "loss/q", "loss/v", "loss/cql", "loss/nll", "value/explained_variance", "value/advantage_std", "train/grad_norm",
    },
    "policy@evolution_strategies-0": MONITOR | {
        "policy/fitness_mean", "policy/fitness_std", "policy/tied_pairs", "train/grad_norm",
    },
    "policy@dno-0": MONITOR | {
        "loss/dno", "policy/pairs", "policy/gold_chosen", "policy/win_rate_margin", "policy/validation_score",
        "train/accuracy", "train/margin", "train/grad_norm",
    },
    "policy@dagger-0": MONITOR | {
        "loss/nll", "policy/labelled", "policy/agreement", "train/states", "train/grad_norm",
    },
    "policy@gail-0": MONITOR | {
        "loss/discriminator", "loss/policy", "train/discriminator_accuracy", "rollout/log_d_mean", "policy/kl",
        "train/grad_norm",
    },
    "policy@maxent_irl-0": MONITOR | {
        "loss/irl", "loss/policy", "train/effective_sample_size", "train/accuracy", "rollout/learned_reward_mean",
        "policy/kl", "train/grad_norm",
    },
}  # fmt: skip


def report(stage):
    head, _, variant = stage.partition("@")
    return f"reports/{head}/{variant}" if variant else f"reports/{head}"


def namespace(stage):
    values = PARAMS
    for part in stage.removesuffix("-0").split("@"):
        values = values[part]
    return values


@pytest.mark.parametrize("stage", MODELS)
def test_models_load_with_plain_transformers(project, stage):
    folder = project.folder / MODELS[stage]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("left ab Ask.\n", return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(written[0], skip_special_tokens=True).startswith("left ab Ask.")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


def test_the_reward_model_loads_with_plain_transformers(project):
    folder = project.folder / "models/reward_model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.num_labels == 1
    assert model.config.score_std > 0
    right, wrong = (f"{tokenizer.bos_token}left ab Ask.\nA: {digit}{tokenizer.eos_token}" for digit in "12")
    scores = [model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item() for text in (right, wrong)]
    assert scores[0] > scores[1]


@pytest.mark.parametrize("stage", STAGES)
def test_receipts_name_the_run_and_the_outputs(project, stage):
    receipt = project.receipt(stage)
    run = project.client().get_run(receipt["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run.data.tags["stage"] == stage
    assert receipt["outs"]
    assert receipt["outs"] == {out: digest(project.folder / out) for out in receipt["outs"]}


def test_every_stage_has_one_run(project):
    client = project.client()
    runs = client.search_runs([client.get_experiment_by_name("realign").experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(STAGES)


@pytest.mark.parametrize("stage", HISTORY)
def test_history_has_the_promised_metrics(project, stage):
    history = read_json(project.folder / report(stage) / "history.json")
    assert {key for row in history for key in row if not key.startswith("alarm/")} == HISTORY[stage] | {"step"}
    steps = [row["step"] for row in history]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert all(torch.isfinite(torch.tensor([value for row in history for value in row.values()])))


@pytest.mark.parametrize("stage", HISTORY)
def test_the_docstring_explains_every_metric(stage):
    """Those of the monitor are explained there; `<component>` stands for each reward component."""
    module = importlib.import_module(STAGES[stage].split()[0])
    explained = module.__doc__ + importlib.import_module("tasks.training.monitor").__doc__
    named = set(re.findall(r"\b(?:loss|policy|rollout|train|value)/\w+", explained))
    named |= {f"rollout/{component}_{what}" for component in ("verifier", "reward_model") for what in ("mean", "share")}
    assert HISTORY[stage] <= named


@pytest.mark.parametrize(("stage", "figures"), [
    ("base_model", {"parameters", "perplexity"}),
    ("judge_model", {
        "prompts", "comparisons", "judge/questions", "judge/gold_agreement", "judge/position_bias",
        "judge/first_position", "ece",
    }),
    ("reward_model", {
        "accuracy", "accuracy_low", "accuracy_high", "accuracy_ceiling", "gold_correlation", "baseline_accuracy", "ece",
        "longer_wins", "length_correlation",
    }),
])  # fmt: skip
def test_promised_figures_are_recorded(project, stage, figures):
    assert figures <= project.receipt(stage)["metrics"].keys()


@pytest.mark.parametrize("stage", HISTORY)
def test_mlflow_has_params_and_metrics_by_step(project, stage):
    run = project.client().get_run(project.receipt(stage)["run_id"])
    assert run.data.params.items() >= {"runtime.seed": "0", "runtime.device": "cpu"}.items()
    for key, value in namespace(stage).items():
        if not isinstance(value, dict):
            assert run.data.params[key] == str(value)
    history = read_json(project.folder / report(stage) / "history.json")
    for metric in HISTORY[stage]:
        points = project.client().get_metric_history(run.info.run_id, metric)
        rows = [row for row in history if metric in row]  # of recorded data, not every step is probed
        assert [point.step for point in points] == [row["step"] for row in rows]
        assert [round(point.value, 6) for point in points] == [row[metric] for row in rows]


@pytest.mark.parametrize("stage", [*MODELS, "reward_model"])
def test_mlflow_has_the_model(project, stage):
    """As a LoggedModel of the run that trained it."""
    folder, client = MODELS.get(stage, "models/reward_model"), project.client()
    [made] = client.get_run(project.receipt(stage)["run_id"]).outputs.model_outputs
    files = f"artifacts/{folder.rpartition('/')[2]}"
    listed = {file.path for file in client.list_logged_model_artifacts(made.model_id, files)}
    assert listed >= {f"{files}/model.safetensors", f"{files}/config.json"}


@pytest.mark.parametrize("stage", ["policy@ppo-0", "policy@grpo-0", "policy@raft-0", "policy@rrhf-0"])
def test_samples_to_read(project, stage, tmp_path):
    rows = read_table(project.folder / report(stage) / "samples.parquet")
    steps = range(0, PARAMS["policy"][stage.partition("@")[2][:-2]]["num_steps"], 10)
    assert [row["step"] for row in rows] == [step for step in steps for _ in range(4)]
    assert len(steps) > 1
    assert all(row["prompt"].endswith("Ask.\n") for row in rows)
    run_id = project.receipt(stage)["run_id"]
    with open(project.client().download_artifacts(run_id, "samples.json", str(tmp_path))) as stream:
        assert len(json.load(stream)["data"]) == len(rows)


@pytest.mark.parametrize(("stage", "loss", "value"), [
    ("reward_model", "loss/bradley_terry", 0.693147), ("policy@dpo-0", "loss/dpo", 0.693147),
    ("policy@dpo_positive-0", "loss/dpo_positive", 0.693147), ("policy@ipo-0", "loss/ipo", 1 / (2 * 0.3) ** 2),
    ("policy@kto-0", "loss/kto", 0.5),
])  # fmt: skip
def test_the_loss_starts_where_theory_says(project, stage, loss, value):
    """The policy is its reference: every Δ is 0."""
    first = read_json(project.folder / report(stage) / "history.json")[0]
    assert first[loss] == pytest.approx(value, abs=1e-5)


def test_grpo_starts_without_any_distance_to_its_reference(project):
    first = read_json(project.folder / report("policy@grpo-0") / "history.json")[0]
    assert first["loss/kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["rollout/kl_mean"] == pytest.approx(0.0, abs=1e-4)


def test_the_monitor_means_the_same_in_every_algorithm(project):
    """The first rollout of all on-policy methods is the same, token for token; so is what is said of it."""
    first = {
        stage: read_json(project.folder / report(stage) / "history.json")[0]
        for stage in POLICIES
        if stage not in {f"policy@{algorithm}-0" for algorithm in PROBED | {"evolution_strategies"}}  # it samples perturbed
    }
    for metric in MONITOR - {"rollout/kl_mean"}:
        assert len({row[metric] for row in first.values()}) == 1, metric
    assert [row["rollout/kl_mean"] for row in first.values()] == pytest.approx([0.0] * len(first), abs=1e-4)
