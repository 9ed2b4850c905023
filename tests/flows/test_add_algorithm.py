"""A new algorithm costs one file, one namespace and one word of params.yaml; then DVC runs it and MLflow has it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient
from ruamel.yaml import YAML

from tasks.core.config import read_params
from tasks.core.files import digest, write_json, write_table
from tasks.models.language import build_model, load_policy, save_model
from tasks.models.reward import reward_model_from_policy
from tasks.models.tokenizer import train_tokenizer
from tests.processes import ENVIRONMENT
from tests.smoke.checkout import checkout

TOY = '''
"""Toy: more of what scores above the mean of its batch."""

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.monitor import Monitor, Scored, reference_logprobs
from tasks.feedback.prompts import load_prompts
from tasks.feedback.rewards import load_scorer
from tasks.models.generate import sample
from tasks.models.language import frozen_copy, load_policy, save_model
from tasks.models.optimizer import adamw, optimizer_step, warmup_constant
from tasks.models.text import TaskConfig
from tasks.rl.logprobs import completion_logprobs


class ToyConfig(Config):
    """params.yaml: policy.toy"""

    namespace = "policy.toy"

    num_steps: int
    learning_rate: float


def train(config: ToyConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    policy, tokenizer = load_policy(stage.dep("models/sft"), stage.device)
    reference = frozen_copy(policy)
    scorer = load_scorer(stage, tokenizer, task)
    monitor = Monitor(stage, scorer, tokenizer)
    prompts = load_prompts(stage, tokenizer, "train")
    optimizer = adamw(list(policy.parameters()), config.learning_rate)
    stage.resume(policy=policy, optimizer=optimizer)
    for step in stage.steps(config.num_steps):
        rollout = sample(
            policy, tokenizer, [prompt.ids for prompt in prompts], max_new_tokens=task.max_new_tokens, temperature=1.0,
            generator=seeds.generator(stage.seed, "rollout", step),
        )
        scores, components = scorer(rollout, [prompt.answer for prompt in prompts])
        rows, batch = next(rollout.pieces(len(rollout)))
        logprobs = (completion_logprobs(policy, batch) * batch.completion_mask).sum(1)
        loss = -((scores - scores.mean())[rows] * logprobs).mean()
        loss.backward()
        optimizer_step(optimizer, warmup_constant(step, config.learning_rate))
        ref_logprobs = reference_logprobs(reference, rollout, 1.0)
        if monitor.log(step, Scored(rollout, ref_logprobs, scores, components), {"loss/policy": loss.detach()}):
            break
    save_model(policy, tokenizer, stage.out(f"models/policy/{stage.variant}"))
    stage.report(f"reports/policy/{stage.variant}")


if __name__ == "__main__":
    run(ToyConfig, train)
'''


def upstream(folder: Path) -> None:
    """What the stages before the policies would have written, without training anything."""
    prompts = [
        {"id": f"q{i}", "query": f"{i} plus 1?", "prompt": f"{i} plus 1?\n", "answer": str(i + 1), "split": "train"}
        for i in range(8)
    ]
    write_table(folder / "data/prepared/prompts.parquet", prompts)
    write_table(folder / "data/prepared/corpus.parquet", [{"text": row["prompt"]} for row in prompts])
    write_table(folder / "data/preferences.parquet", [{"prompt": "1?\n", "chosen": "1", "rejected": "2"}])
    write_json(folder / "reports/validate_preferences/verdict.json", {"passed": True, "contaminated": False})
    tokenizer = train_tokenizer([row["prompt"] for row in prompts], 300)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    sft = build_model(tokenizer, 0, max_position_embeddings=192, initializer_range=0.1, **shape)
    save_model(sft, tokenizer, folder / "models/sft")
    reward_model = reward_model_from_policy(folder / "models/sft", "cpu")
    reward_model.score.weight.data.fill_(0.1)
    reward_model.config.score_mean, reward_model.config.score_std = 0.0, 1.0
    save_model(reward_model, tokenizer, folder / "models/reward_model")


def test_one_file_one_namespace_one_word(tmp_path: Path, database: Path) -> None:
    folder = checkout(tmp_path)
    upstream(folder)
    (folder / "mlflow.db").write_bytes(database.read_bytes())

    (folder / "tasks/algorithms/toy.py").write_text(TOY)
    params = read_params(folder / "params.yaml")
    params["policy"]["toy"] = {"num_steps": 2, "learning_rate": 1.0e-3}
    params["policy"]["algorithms"].append("toy")
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)

    changed = subprocess.run(["git", "status", "--porcelain"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert changed.stdout.splitlines() == [" M params.yaml", "?? tasks/algorithms/toy.py"]
    environment = ENVIRONMENT | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        ["dvc", "repro", "--single-item", "policy@toy-0"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    policy, _ = load_policy(folder / "models/policy/toy-0", "cpu")
    assert policy.num_parameters() == load_policy(folder / "models/sft", "cpu")[0].num_parameters()
    assert digest(folder / "models/policy/toy-0/model.safetensors") != digest(folder / "models/sft/model.safetensors")
    receipt = json.loads((folder / "runs/policy@toy-0.json").read_text())
    assert receipt["outs"]["models/policy/toy-0"] == digest(folder / "models/policy/toy-0")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run = client.get_run(receipt["run_id"])
    assert (run.info.run_name, run.info.status) == ("policy@toy-0", "FINISHED")
    assert run.data.params["learning_rate"] == "0.001"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "rollout/score_mean")] == [0, 1]
    locked = YAML(typ="safe").load(folder / "dvc.lock")["stages"]["policy@toy-0"]
    assert "tasks/algorithms/toy.py" in [dep["path"] for dep in locked["deps"]]
    assert locked["params"]["params.yaml"]["policy.toy"] == {"num_steps": 2, "learning_rate": 1.0e-3}
