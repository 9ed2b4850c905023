"""What train() reads when it runs in memory."""

import pytest

from tasks.core.files import read_table, write_table
from tasks.models.language import build_model, save_model
from tasks.models.tokenizer import load_tokenizer
from tests.project import make


@pytest.fixture(scope="session")
def random_models(tmp_path_factory):
    """The small project with random models and with pairs of unequal length."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "none.db").touch()
    make(folder, folder / "none.db", None)
    tokenizer = load_tokenizer(folder / "models/tokenizer")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    for name in ("base", "sft"):
        model = build_model(tokenizer, 0, max_position_embeddings=32, initializer_range=0.1, **shape)
        save_model(model, tokenizer, folder / "models" / name)
    prompts = read_table(folder / "data/prepared/prompts.parquet")
    write_table(folder / "data/preferences.parquet", [
        {"id": row["id"], "prompt": row["prompt"], "chosen": row["solution"], "split": row["split"], "gap": 1.0,
         "rejected": "so " * (number % 4) + row["mistake"], "kind": "toy"}
        for number, row in enumerate(prompts) if row["split"] != "validation"
    ])  # fmt: skip
    write_table(folder / "data/feedback.parquet", [])
    return folder
