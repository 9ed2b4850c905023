"""How fast a model of 135 M weights learns: SFT, DPO, GRPO and PPO train an adapter of rank 16 in bfloat16.

The weights are random, in the shape of SmolLM2-135M, or those of the folder REALIGN_CHAT_MODEL; the texts are those of
tests/project.py, repeated. Tokens are those a step learns from, prompt included; a prompt counts once for all its completions.
The operations are those of the weights: 2 per weight and token in a forward pass, 4 forward and backward where weights are
frozen. Attention, the adapter and the optimizer are left out, so the share of the peak is a lower bound.
"""

import gc
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.core.files import read_table, write_table
from tasks.models.language import save_model
from tasks.models.text import encode_completions, encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tests.gpu.stages import Unrecorded, make_project, now, work
from tests.project import PARAMS

SMOLLM2 = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3,
}  # fmt: skip
TINY = {
    "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
OPERATIONS = {"sft": 4, "policy@dpo-0": 4, "policy@grpo-0": 8, "policy@ppo-0": 10}  # sampling 2, reference 2, values 2
POLICY = PARAMS["policy"]
LONG = ("prompt", "completion", "solution", "mistake")  # columns


class Size(NamedTuple):
    shape: dict[str, int]
    repeated: int  # times each text
    rows: int  # of a batch
    steps: int  # of SFT and DPO; DPO samples probes in 12 of them, and the best is another
    matrix: int


def measure(folder: Path, device: str, size: Size) -> dict[str, Any]:
    given = os.environ.get("REALIGN_CHAT_MODEL", "")
    model = Path(given) if given and size.shape is SMOLLM2 and Path(given).is_dir() else None
    make_long_project(folder, device, size)
    if model:
        shutil.copytree(model, folder / "models/base")
    else:
        make_model(folder, size.shape)
    peak = measured_peak(device, size.matrix)
    training = {name: train(folder, name, peak) for name in OPERATIONS}
    return {"model": model.name if model else "random weights", "peak TFLOP/s": digits(peak / 1e12), "training": training}


def make_long_project(folder: Path, device: str, size: Size) -> None:
    batch = {"batch_size": size.rows, "micro_batch_size": size.rows // 2}
    rollouts = {"num_steps": 3, "rollout_batch_size": 4 * size.rows, "group_size": 4, "num_epochs": 1, **batch}
    make_project(folder, device, {
        "task": PARAMS["task"] | {"max_prompt_tokens": 512, "max_new_tokens": 8 * size.repeated},
        "compute": PARAMS["compute"] | {"precision": "bfloat16"},
        "adapter": PARAMS["adapter"] | {"rank": 16},
        "sft": PARAMS["sft"] | {"num_steps": size.steps, **batch},
        "reward": PARAMS["reward"] | {"weights": {"verifier": 1.0}},
        "policy": POLICY | {"dpo": POLICY["dpo"] | {"num_steps": size.steps, **batch}}
        | {name: POLICY[name] | rollouts for name in ("grpo", "ppo")},
    })  # fmt: skip
    for file in (folder / f"data/prepared/{name}.parquet" for name in ("demonstrations", "prompts")):
        short = read_table(file)
        write_table(file, [{key: text * size.repeated if key in LONG else text for key, text in row.items()} for row in short])
    write_table(folder / "data/preferences.parquet", [
        {"id": row["id"], "prompt": row["prompt"], "chosen": row["solution"], "rejected": row["mistake"], "gap": 1.0,
         "split": row["split"], "kind": "toy"} for row in read_table(folder / "data/prepared/prompts.parquet")
    ])  # fmt: skip
    (folder / "models/reward_model").mkdir()  # must be there, and has no weight


def make_model(folder: Path, shape: dict[str, int]) -> None:
    """Random weights; the tokenizer is that of the project, which knows the first few hundred ids."""
    tokenizer = load_tokenizer(folder / "models/tokenizer")
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = LlamaConfig(**shape, **ends, tie_word_embeddings=True, max_position_embeddings=1024)
    save_model(LlamaForCausalLM(config).to(torch.bfloat16), tokenizer, folder / "models/base")


def train(folder: Path, name: str, peak: float) -> dict[str, float | None]:
    """The figures of the stage's best step. peak: operations per second that the device can do."""
    cuda = torch.cuda.is_available()
    gc.collect()  # the model before
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    stage = work(folder, name)
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    best = max(tokens / seconds for tokens, seconds in zip(tokens_of_steps(folder, stage), stage.seconds, strict=True))
    share = OPERATIONS[name] * num_weights(folder) * best / peak
    return {"tokens/s": digits(best), "peak memory GiB": memory and digits(memory), "share of peak": digits(share)}


def digits(value: float) -> float:
    """Three of them: a second measurement would not agree in more."""
    return float(f"{value:.3g}")


def tokens_of_steps(folder: Path, stage: Unrecorded) -> list[float]:
    tokenizer, config = load_tokenizer(folder / "models/base"), stage.config
    row = read_table(folder / "data/prepared/demonstrations.parquet")[0]
    [prompt], [completion] = encode_prompts(tokenizer, [row["prompt"]]), encode_completions(tokenizer, [row["completion"]])
    if stage.name in ("policy@grpo-0", "policy@ppo-0"):
        prompts = config.rollout_batch_size // config.group_size
        return [prompts * len(prompt) + step["rollout/tokens"] for step in stage.history]
    completions = 1 if stage.name == "sft" else 2
    return [config.batch_size * (len(prompt) + completions * len(completion))] * len(stage.seconds)


def num_weights(folder: Path) -> int:
    with safe_open(folder / "models/base/model.safetensors", "pt") as stored:
        return sum(stored.get_tensor(name).numel() for name in stored.keys())  # noqa: SIM118


def measured_peak(device: str, size: int) -> float:
    """Operations per second of a large product of matrices in bfloat16."""
    matrix, products = torch.rand(size, size, device=device).bfloat16(), 20
    matrix @ matrix
    began = now()
    for _ in range(products):
        matrix @ matrix
    return products * 2 * size**3 / (now() - began)
