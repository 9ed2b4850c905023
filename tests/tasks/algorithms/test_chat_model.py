"""The path of data/variants/smollm2.yaml in small: the real tokenizer and its template, a tiny random model, SFT."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.algorithms import sft
from tasks.algorithms.base_model import BaseModelConfig, make_model
from tasks.core.files import digest, write_table
from tasks.models.chat import adopt_template, write_prompt
from tasks.models.generate import greedy, stop_ids
from tasks.models.language import load_model, save_model
from tasks.models.text import encode_prompts
from tasks.models.tokenizer import load_tokenizer
from tests.project import PARAMS
from tests.tasks.algorithms.test_micro_batches import Bench

ROWS = [("What is 2 + 3?", "5"), ("Name a colour.", "Blue."), ("Say yes.", "Yes."), ("Where is Paris?", "In France.")]


@pytest.fixture
def folder(shared, tmp_path):
    """What the stages before SFT write."""
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
    rows = [{"prompt": prompt, "completion": answer} for prompt, (_, answer) in zip(prompts, ROWS, strict=True)]
    write_table(tmp_path / "data/prepared/demonstrations.parquet", rows)
    return tmp_path


def test_a_chat_model_learns_and_keeps_its_template_its_end_and_its_precision(folder):
    values = PARAMS["sft"] | {"num_steps": 60, "batch_size": 4, "learning_rate": 5.0e-2}
    bench = Bench(folder, folder)
    sft.train(sft.SftConfig.model_validate(values), bench)
    assert bench.history[-1]["loss/nll"] < bench.history[0]["loss/nll"] - 2
    published = folder / "models/sft"
    assert {tensor.dtype for tensor in load_file(published / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((published / "config.json").read_text())["dtype"] == "bfloat16"
    model, tokenizer = load_model(published).eval(), load_tokenizer(published)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in stop_ids(model, tokenizer)
    prompt = write_prompt(tokenizer, [{"role": "user", "content": "Say yes."}])
    [completion] = greedy(model, tokenizer, encode_prompts(tokenizer, [prompt]), 8)
    assert completion[-1] == end
