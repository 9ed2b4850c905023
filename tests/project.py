"""A whole project small enough to run in seconds, whose best answers are known.

The right answer to a query is 1 if it says left and 2 if it says right. Demonstrations answer 1 to the instruction Go, 2 to
Stop, and either by chance to Ask, with which the policies' prompts are written. So the SFT model is right half of the time,
reinforcement must reach 1, and the best instruction is Go for a left query and Stop for a right one.
"""

import random
import shutil
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from ruamel.yaml import YAML

from tasks.core.config import read_params
from tasks.core.files import Row, read_json, write_json, write_table
from tasks.models.text import render
from tasks.models.tokenizer import train_tokenizer
from tests.processes import REPO, Done, Nursery, Running

INSTRUCTIONS = {"go": "Go.", "stop": "Stop.", "ask": "Ask."}
TEMPLATES = "data/judge/arithmetic.yaml"  # where dvc.yaml expects them
PROMPT_FORMAT = "{query} {instruction}\n"
ANSWERS = {"left": "1", "right": "2"}

ON_POLICY = {"rollout_batch_size": 32, "group_size": 4, "temperature": 1.0}
POLICIES: dict[str, dict[str, Any]] = {
    "ppo": ON_POLICY | {
        "num_steps": 15, "num_epochs": 2, "batch_size": 16, "micro_batch_size": 8, "learning_rate": 1.0e-3,
        "value_learning_rate": 1.0e-2, "kl_coef": 0.1, "reduction": "token_mean",
        "adaptive_kl_target": None, "stop_approx_kl": None,
        "clip_range": 0.2, "value_coef": 0.1, "value_clip_range": 0.5, "entropy_coef": 0.0, "gamma": 1.0, "gae_lambda": 0.95,
        "missing_eos_penalty": 0.5,
    },
    "ppo_max": ON_POLICY | {
        "num_steps": 15, "num_epochs": 2, "batch_size": 16, "micro_batch_size": 8, "learning_rate": 1.0e-3,
        "value_learning_rate": 3.0e-3, "score_normalization": True, "score_clip_range": 3.0, "kl_coef": 0.1,
        "kl_level": "token", "reduction": "token_mean", "clip_range": 0.2,
        "critic": "reward_model", "critic_warmup_steps": 2, "value_clip_range": 0.5, "whiten_advantages": True,
        "max_grad_norm": 1.0, "pretraining_coef": 0.02, "pretraining_batch_size": 8, "gamma": 1.0, "gae_lambda": 0.95,
        "missing_eos_penalty": 0.5,
    },
    "reinforce": ON_POLICY | {
        "num_steps": 25, "micro_batch_size": 16, "learning_rate": 3.0e-3, "kl_coef": 0.05, "missing_eos_penalty": 0.5,
    },
    "reinforce_baseline": ON_POLICY | {
        "num_steps": 25, "micro_batch_size": 16, "learning_rate": 3.0e-3, "kl_coef": 0.05, "baseline_decay": 0.9,
        "missing_eos_penalty": 0.5,
    },
    "rloo": ON_POLICY | {
        "num_steps": 25, "num_epochs": 1, "batch_size": 32, "micro_batch_size": 16, "learning_rate": 3.0e-3,
        "kl_coef": 0.05, "clip_range": 0.2, "missing_eos_penalty": 0.5,
    },
    "grpo": ON_POLICY | {
        "num_steps": 25, "num_epochs": 1, "batch_size": 32, "micro_batch_size": 16, "learning_rate": 3.0e-3, "kl_coef": 0.02,
        "kl_estimator": "k3", "kl_correction": False, "reduction": "token_mean", "surrogate": "clipped",
        "importance_level": "token", "clip_range_low": 0.2, "clip_range_high": 0.2, "max_ratio": None, "std_eps": 0.2,
        "drop_equal_groups": False, "overlong_penalty_tokens": 0,
        "missing_eos_penalty": 0.5,
    },
    "dpo": {"num_steps": 40, "batch_size": 16, "micro_batch_size": None, "learning_rate": 1.0e-3, "beta": 0.3},
    "dpo_positive": {
        "num_steps": 40, "batch_size": 16, "micro_batch_size": None, "learning_rate": 1.0e-3, "beta": 0.3,
        "penalty_coef": 5.0, "penalty_in": "margin",
    },
    "ipo": {"num_steps": 40, "batch_size": 16, "micro_batch_size": None, "learning_rate": 1.0e-3, "beta": 0.3},
    "orpo": {"num_steps": 40, "batch_size": 16, "micro_batch_size": None, "learning_rate": 1.0e-3, "odds_ratio_coef": 1.0},
    "kto": {
        "num_steps": 25, "batch_size": 16, "micro_batch_size": None, "learning_rate": 1.0e-3, "beta": 0.3,
        "desirable_weight": 1.0, "undesirable_weight": 1.0,
    },
    "raft": ON_POLICY | {"num_steps": 25, "micro_batch_size": None, "learning_rate": 1.0e-3},
    "rrhf": ON_POLICY | {"num_steps": 25, "micro_batch_size": 16, "learning_rate": 1.0e-3, "sft_coef": 3.0},
    "ilql": {
        "num_steps": 40, "batch_size": 32, "micro_batch_size": None, "learning_rate": 5.0e-3, "value_learning_rate": 1.0e-2,
        "gamma": 1.0,
        "td_lambda": 0.95, "tau": 0.7, "cql_coef": 0.01, "nll_coef": 0.1, "polyak_rate": 0.3, "beta": 4.0,
    },
    "evolution_strategies": {
        "num_steps": 30, "rollout_batch_size": 192, "population_size": 12, "perturbed": "k_proj", "sigma": 0.2,
        "learning_rate": 0.1, "temperature": 1.0, "kl_coef": 0.0,
    },
    "dno": ON_POLICY | {
        "num_iterations": 12, "steps_per_iteration": 3, "pairs_per_prompt": 2, "min_margin": 0.1, "batch_size": 16,
        "micro_batch_size": None, "learning_rate": 1.0e-3, "beta": 0.5, "num_validation_prompts": 40,
    },
    "dagger": ON_POLICY | {
        "expert": "solver", "expert_revision": None, "num_steps": 20, "updates_per_step": 2, "batch_size": 16,
        "micro_batch_size": None, "learning_rate": 3.0e-3,
    },
    "gail": ON_POLICY | {
        "expert": "solver", "num_steps": 30, "micro_batch_size": 16, "learning_rate": 1.0e-3, "kl_coef": 0.05,
        "discriminator_updates": 8,
        "discriminator_batch_size": 16, "discriminator_learning_rate": 5.0e-3,
    },
    "maxent_irl": {
        "expert": "solver", "num_steps": 35, "rollout_batch_size": 32, "group_size": 4, "micro_batch_size": 16,
        "learning_rate": 1.0e-3, "kl_coef": 0.05, "reward_epochs": 2, "reward_batch_size": 4,
        "reward_learning_rate": 5.0e-3, "weight_temperature": 1.0,
    },
}  # fmt: skip
ALGORITHMS = list(POLICIES)

PARAMS: dict[str, Any] = {
    "runtime": {"seed": 0, "threads": 1, "device": "cpu"},
    "task": {"prompt_format": PROMPT_FORMAT, "max_prompt_tokens": 16, "max_new_tokens": 8, "verifier": "number"},
    "compute": {"precision": "float32", "rows_at_once": None, "logits_at_once": None, "checkpointing": False, "processes": 1},
    "adapter": {"rank": 0, "alpha": 32.0, "targets": None},
    "optimizer": {
        "beta1": 0.9, "beta2": 0.98, "weight_decay": 0.01, "max_grad_norm": 1.0, "warmup_steps": 5, "warmup_share": 0.05,
        "final_share": 0.1, "average_share": 0.0,
    },
    "validation": {"num_rows": 0, "every": 5, "keep_best": False},
    "base_model": {
        "source": "config", "revision": None, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 32, "initializer_range": 0.1,
        "num_steps": 60, "batch_size": 16, "micro_batch_size": None, "learning_rate": 5.0e-3,
    },
    "sft": {"num_steps": 120, "batch_size": 16, "micro_batch_size": None, "learning_rate": 5.0e-3},
    "judge_model": {"num_steps": 120, "batch_size": 8, "micro_batch_size": None, "learning_rate": 3.0e-3},
    "collect_preferences": {
        "source": "annotator", "kind": "pairwise", "num_prompts": 120, "held_out_prompts": 30, "samples_per_prompt": 4,
        "pairs_per_prompt": 2, "temperature": 1.0, "bradley_terry_temperature": 0.3, "utility": {"verifier": 1.0},
        "cost_per_token": 0.03, "length_bias": 0.0, "annotators": 1, "disagreement": 0.0, "decisive_rate": 0.9,
        "contrast_rate": 0.5,
        "judge": {
            "templates": TEMPLATES, "model": "sft", "model_revision": None, "base_url": None, "rationale_tokens": 0,
            "repeat_rate": 0.5, "timeout": 5.0, "retries": 2, "concurrency": 4,
        },
    },
    "reward_model": {
        "source": "sft", "revision": None, "loss": "bradley_terry", "num_steps": 100, "batch_size": 16,
        "micro_batch_size": None, "learning_rate": 3.0e-3, "center_coef": 1.0e-3, "margin_coef": 0.0, "imitation_coef": 0.0,
        "process_coef": 0.0, "ensemble_size": 1,
    },
    "reward": {
        "weights": {"verifier": 0.5, "reward_model": 0.5},
        "functions": {
            "length_band": {"shortest": 1, "longest": 2}, "sentiment": {"positive": ["so"], "negative": ["no"]},
        },
    },
    "alarms": {
        "window": 3, "length_drift": 2.0, "repetition": 0.5, "eos_rate": 0.3, "entropy": 0.01, "kl_budget": 20.0,
        "proxy_gap": 0.3, "dominance": 0.99, "stop": [],
    },
    "policy": {"algorithms": ALGORITHMS, "seeds": [0], **POLICIES},
    "collect_prompt_log": {"num_queries": 96, "num_test_queries": 40},
    "prompt_log": {"source": "data/prompt_log.parquet", "split": "given", "fold": 0},
    "prompt_oirl": {
        "encoder": "models/base", "learner": "finetune", "num_steps": 60, "batch_size": 16, "learning_rate": 3.0e-3,
        "hidden_size": 16,
    },
    "prompt_oirl_study": {
        "experiments": ["honest", "published"], "encoder": "data/encoders/tfidf.yaml", "learner": "kernel", "ks": [1, 3],
    },
    "propose_prompts": {
        "num_steps": 6, "members": 2, "ensemble_steps": 30, "sft_steps": 20, "batch_size": 16, "rollout_batch_size": 16,
        "max_instruction_tokens": 5, "hidden_size": 16, "ensemble_learning_rate": 3.0e-3, "sft_learning_rate": 3.0e-3,
        "learning_rate": 1.0e-3, "temperature": 1.0, "kl_coef": 0.01, "max_distance": 0.9, "max_disagreement": 0.2,
        "num_candidates": 3, "num_validation_queries": 20, "num_test_queries": 40,
    },
    "evaluate": {
        "num_prompts": 40, "num_beams": 1, "samples_per_prompt": 2, "judge": "verifier", "bootstrap_samples": 200,
        "text_metrics": [],
        "harmless": {"judge": None, "judge_revision": None, "judge_label": None, "requests": "data/requests.yaml"},
    },
}  # fmt: skip
JUDGE_TEXTS = """judge:
  preamble: ""
  exemplars: []
  sample: "{query}\\n{first}\\n{second}\\n"
  rationale: "Why:"
  ending: ":"
"""
STAGES = {
    "base_model": "tasks.algorithms.base_model",
    "sft": "tasks.algorithms.sft",
    "judge_model": "tasks.algorithms.judge_model",
    "collect_preferences": "tasks.feedback.{collect_preferences[source]}.collect",
    "reward_model": "tasks.algorithms.reward_model",
    **{f"policy@{algorithm}-0": f"tasks.algorithms.{algorithm} --seed 0" for algorithm in ALGORITHMS},
    "collect_prompt_log": "tasks.prompt_oirl.collect",
    "prompt_oirl": "tasks.prompt_oirl.fit",
    "prompt_oirl_study": "tasks.prompt_oirl.study",
    "propose_prompts": "tasks.prompt_oirl.propose",
    "evaluate": "tasks.evaluation.evaluate",
}
LONG_STAGES = [name for name in STAGES if name not in ("collect_preferences", "evaluate")]


class Project:
    """A folder in which stages run."""

    def __init__(self, folder: Path, nursery: Nursery):
        self.folder, self.nursery = folder, nursery

    def run(self, stage: str, **environment: str) -> Done:
        return self.nursery.run(self.folder, self.module(stage), **environment)

    def start(self, stage: str, **environment: str) -> Running:
        return self.nursery.start(self.folder, self.module(stage), **environment)

    def module(self, stage: str) -> str:
        """What dvc.yaml runs under that name, with the params of this folder."""
        return STAGES[stage].format_map(read_params(self.folder / "params.yaml"))

    def copy(self, folder: Path) -> "Project":
        """The same inputs and models; nobody else's runs, receipts or checkpoints."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("mlartifacts", "runs", ".scratch"))
        return Project(folder, self.nursery)

    def set(self, namespace: str, **values: Any) -> None:
        """Change params: set("policy.ppo", group_size=1)."""
        params = inner = read_params(self.folder / "params.yaml")
        for part in namespace.split("."):
            inner = inner[part]
        inner.update(values)
        write_params(self.folder, params)

    def receipt(self, stage: str) -> dict[str, Any]:
        return read_json(self.folder / "runs" / f"{stage}.json")

    def runs(self, stage: str) -> list[Any]:
        """Its MLflow runs, the newest first."""
        client = self.client()
        experiment = client.get_experiment_by_name("realign")
        return list(client.search_runs([experiment.experiment_id], f"attributes.run_name = '{stage}'"))

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{self.folder / 'mlflow.db'}")


def make(folder: Path, database: Path, nursery: Nursery) -> Project:
    """Everything the stages before base_model would have written."""
    shutil.copy(database, folder / "mlflow.db")
    write_params(folder, PARAMS)
    shutil.copytree(REPO / "data/encoders", folder / "data/encoders")
    (folder / TEMPLATES).parent.mkdir()
    (folder / TEMPLATES).write_text(JUDGE_TEXTS)
    prepared = folder / "data/prepared"
    demonstrations, prompts = demonstrations_and_prompts()
    corpus = [{"text": row["prompt"] + row["completion"]} for row in demonstrations]
    write_table(prepared / "corpus.parquet", corpus)
    write_table(prepared / "demonstrations.parquet", demonstrations)
    write_table(prepared / "prompts.parquet", prompts)
    texts = [{"id": id, "text": text} for id, text in INSTRUCTIONS.items()]
    write_json(prepared / "instructions.json", {"default": "ask", "instructions": texts})
    train_tokenizer([row["text"] for row in corpus], 300).save_pretrained(folder / "models/tokenizer")
    for gate in ("validate_data", "validate_preferences", "validate_prompt_log"):
        write_json(folder / f"reports/{gate}/verdict.json", {"passed": True, "contaminated": False})
    return Project(folder, nursery)


def demonstrations_and_prompts() -> tuple[list[Row], list[Row]]:
    chance = random.Random(0)
    queries = [f"{side} {a}{b}" for side, a, b in product(ANSWERS, ascii_lowercase[:12], ascii_lowercase[:10])]
    chance.shuffle(queries)
    demonstrations, prompts = [], []
    for number, query in enumerate(queries):
        right = ANSWERS[query.split()[0]]
        wrong = "2" if right == "1" else "1"
        split = "train" if number < 140 else "validation" if number < 180 else "test"
        prompt = render(query, INSTRUCTIONS["ask"], PROMPT_FORMAT)
        prompts.append({
            "id": f"q{number}", "query": query, "prompt": prompt, "answer": right, "solution": f"A: {right}",
            "mistake": f"A: {wrong}", "kind": "toy", "split": split,
        })  # fmt: skip
        for name, text in INSTRUCTIONS.items() if split == "train" else ():
            says = {"go": "1", "stop": "2", "ask": chance.choice("12")}[name]
            demonstrations.append({
                "id": f"q{number}-{name}", "query": query, "instruction_id": name,
                "prompt": render(query, text, PROMPT_FORMAT), "completion": chance.choice(["A: ", "so A: "]) + says,
            })  # fmt: skip
    return demonstrations, prompts


def write_params(folder: Path, params: dict[str, Any]) -> None:
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)
