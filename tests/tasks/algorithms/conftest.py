"""A bench for train(): it runs in this process, on random models, and nothing is tracked."""

from pathlib import Path

import pytest

from tasks.core.config import lookup
from tasks.core.files import read_table, write_table
from tasks.models.language import build_model, save_model
from tasks.models.tokenizer import load_tokenizer
from tests.project import PARAMS, make


class Bench:
    """What train() asks of a stage."""

    device, seed, start, name, variant = "cpu", 7, 0, "policy@any-0", "any-0"

    def __init__(self, folder: Path, written: Path):
        self.folder, self.written, self.history = folder, written, []

    def params(self, config_class):
        values = lookup(PARAMS, config_class.namespace)
        return config_class.model_validate(values | ({"weights": {"verifier": 1.0}} if "weights" in values else {}))

    def dep(self, path):
        return self.folder / path

    def out(self, path):
        return self.written / path

    def resume(self, **parts):
        self.optimizer = parts["optimizer"]

    def steps(self, total):
        return range(total)

    def log(self, step, values, every=1, samples=None):
        self.history.append({"step": step} | {key: float(value) for key, value in values.items()})

    def record(self, **metrics):
        self.metrics = metrics

    def report(self, folder):
        self.reported = folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small project with random models and with pairs of unequal length."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "none.db").touch()
    make(folder, folder / "none.db", None)
    tokenizer = load_tokenizer(folder / "models/tokenizer")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    for name in ("base", "sft"):
        model = build_model(tokenizer, 0, max_position_embeddings=32, initializer_range=0.1, **shape)
        save_model(model, tokenizer, folder / "models" / name)
    prompts = [row for row in read_table(folder / "data/prepared/prompts.parquet") if row["split"] == "train"]
    write_table(folder / "data/preferences.parquet", [
        {"id": row["id"], "prompt": row["prompt"], "chosen": row["solution"], "split": "train", "gap": 1.0,
         "rejected": "so " * (number % 4) + row["mistake"]}
        for number, row in enumerate(prompts)
    ])  # fmt: skip
    return folder
