"""The path of data/variants/smollm2.yaml in small: the real tokenizer and its template, a tiny random model, every training."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.algorithms import dpo, grpo, reward_model, sft
from tasks.algorithms.base_model import BaseModelConfig, make_model
from tasks.core.config import lookup
from tasks.core.files import digest, write_table
from tasks.models.chat import adopt_template, write_prompt
from tasks.models.generate import greedy, stop_ids
from tasks.models.language import load_model, save_model
from tasks.models.text import encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tests.project import PARAMS
from tests.tasks.algorithms.bench import Bench

ROWS = [("What is 2 + 3?", "5"), ("Name a colour.", "Blue."), ("Say yes.", "Yes."), ("Where is Paris?", "In France.")]
TASK = {"task": {"max_prompt_tokens": 64, "max_new_tokens": 4}}


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """What the stages before SFT write."""
    tmp_path = tmp_path_factory.mktemp("chat")
    tokenizer = load_tokenizer(shared / "models/tokenizers/smollm2")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape)).to(torch.bfloat16)
    save_model(model, tokenizer, tmp_path / "source")
    adopt_template(tokenizer, None)
    source = (tmp_path / "source").as_posix()
    config = BaseModelConfig.model_validate(PARAMS["base_model"] | {"source": source, "revision": digest(tmp_path / "source")})
    save_model(make_model(config, tokenizer, Bench(tmp_path, tmp_path)), tokenizer, tmp_path / "models/base")
    prompts = [write_prompt(tokenizer, [{"role": "user", "content": query}]) for query, _ in ROWS]
    rows = [
        {"query": query, "prompt": prompt, "completion": answer} for prompt, (query, answer) in zip(prompts, ROWS, strict=True)
    ]
    write_table(tmp_path / "data/prepared/demonstrations.parquet", rows)
    splits = ("train", "validation", "test")
    write_table(tmp_path / "data/prepared/prompts.parquet", [
        {"id": f"{split}-{number}", "query": query, "prompt": prompt, "answer": "5", "solution": None, "mistake": None,
         "kind": None, "split": split}
        for split in splits for number, (prompt, (query, _)) in enumerate(zip(prompts, ROWS, strict=True))
    ])  # fmt: skip
    write_table(tmp_path / "data/preferences.parquet", [
        {"id": f"{split}-{number}", "prompt": row["prompt"], "chosen": row["completion"], "rejected": "No, not at all.",
         "gap": None, "kind": None, "split": split} for split in splits for number, row in enumerate(rows)
    ])  # fmt: skip
    write_table(tmp_path / "data/feedback.parquet", [])
    return tmp_path


def train(module, config_class, bench, **changed):
    values = lookup(PARAMS, config_class.namespace) | changed
    module.train(config_class.model_validate(values), bench)
    return bench.history


@pytest.fixture(scope="module")
def history(folder):
    """Of SFT, which has written its model."""
    return train(sft, sft.SftConfig, Bench(folder, folder), num_steps=60, batch_size=4, learning_rate=5.0e-2)


def test_a_chat_model_learns_and_keeps_its_template_its_end_and_its_precision(folder, history):
    assert history[-1]["loss/nll"] < history[0]["loss/nll"] - 2
    published = folder / "models/sft"
    assert {tensor.dtype for tensor in load_file(published / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((published / "config.json").read_text())["dtype"] == "bfloat16"
    model, tokenizer = load_model(published).eval(), load_tokenizer(published)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in stop_ids(model, tokenizer)
    prompt = write_prompt(tokenizer, [{"role": "user", "content": "Say yes."}])
    [completion] = greedy(model, tokenizer, encode_prompts(tokenizer, [prompt]), 8)
    assert completion[-1] == end


def test_reward_model_dpo_and_grpo_read_the_same_chat(folder, history, tmp_path):
    assert history
    scored = train(reward_model, reward_model.RewardModelConfig, Bench(folder, tmp_path, TASK), num_steps=11, batch_size=4)
    assert scored[-1]["loss/bradley_terry"] < scored[0]["loss/bradley_terry"] - 0.1
    preferred = train(dpo, dpo.DpoConfig, Bench(folder, tmp_path, TASK), num_steps=6, batch_size=4)
    assert preferred[-1]["loss/dpo"] < preferred[0]["loss/dpo"] - 0.1
    sampled = train(grpo, grpo.GrpoConfig, Bench(folder, tmp_path, TASK), num_steps=2, rollout_batch_size=16, batch_size=16)
    assert sampled[0]["rollout/eos_rate"] > 0.9
    assert 0.1 < sampled[0]["rollout/verifier_mean"] < 0.4  # the one of four questions to which 5 is the answer
    written = load_tokenizer(tmp_path / "models/policy/any-0")
    assert written.eos_token == "<|im_end|>"
    assert written.chat_template == load_tokenizer(folder / "models/sft").chat_template
