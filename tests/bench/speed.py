"""What sampling and training cost with and without what this project does about it: `make bench`, some minutes on one core.

Each comparison runs both sides in turn, so that other work on the machine meets both, and counts CPU seconds:

    cache      sampling with the cache that grows by blocks, against transformers' own, copied for every token
    groups     a training pass over completions that share a prompt, which is read once, against once for every completion
    pairs      the same of chosen and rejected completions

    python -m tests.bench.speed [--record]      # --record: keeps it in docs/results/bench
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from transformers import DynamicCache

from docs.build import DOCS, write
from docs.record import origin
from tasks.core.files import write_json
from tasks.models import generate
from tasks.models.batch import Batch, collate
from tasks.models.language import build_model
from tasks.models.tokenizer import train_tokenizer
from tasks.rl.logprobs import completion_logprobs

RUNS = 9
SHAPES = {  # of the models, by name; the default's, and those of a comparison with TRL
    "default": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192},
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 384},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1536},
}
SAMPLED = {"default": (256, 8, 48), "tiny": (32, 8, 48), "small": (32, 8, 48)}  # rows, group size, new tokens
TRAINED = {"default": (64, 4), "tiny": (32, 8), "small": (32, 8)}  # rows, group size
PROMPT, COMPLETION = 32, 38  # tokens


def measure(before: Callable[[], object], after: Callable[[], object], runs: int = RUNS) -> dict[str, float]:
    """Medians of both in CPU seconds, their ratio, and the least and the largest ratio of two neighbours."""
    for side in (before, after):
        side()
    times = [(seconds(before), seconds(after)) for _ in range(runs)]
    old, new = (statistics.median(side) for side in zip(*times, strict=True))
    ratios = [first / second for first, second in times]
    return {"before": old, "after": new, "ratio": old / new, "least": min(ratios), "largest": max(ratios)}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(shapes: Sequence[str], runs: int = RUNS) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["Tom has 120 apples and eats 7. How many are left?"], 300)
    found = []
    for shape in shapes:
        model = build_model(tokenizer, 0, max_position_embeddings=192, initializer_range=0.05, **SHAPES[shape])
        draw = torch.Generator().manual_seed(0)
        rows, group, tokens = SAMPLED[shape]
        prompts = random_texts([PROMPT] * (rows // group), len(tokenizer), draw)
        write_here = partial(sample, model, tokenizer, prompts, group, tokens)
        found.append({"what": "cache", "shape": shape, "rows": rows, "group": group})
        found[-1] |= measure(partial(with_copies, write_here), write_here, runs)
        rows, largest = TRAINED[shape]
        for what, group in (("groups", largest), ("pairs", 2)):
            batch = batch_of(rows, group, len(tokenizer), tokenizer.pad_token_id, draw)
            found.append({"what": what, "shape": shape, "rows": rows, "group": group})
            found[-1] |= measure(partial(train, model, batch, False), partial(train, model, batch, True), runs)
    return found


def sample(model: Any, tokenizer: Any, prompts: list[list[int]], group: int, tokens: int) -> object:
    noise = torch.Generator().manual_seed(1)
    return generate.sample(model, tokenizer, prompts, max_new_tokens=tokens, temperature=1.0, generator=noise, group_size=group)


def with_copies(work: Callable[[], object]) -> object:
    with patch.object(generate, "make_cache", lambda model: DynamicCache(config=model.config)):
        return work()


def random_texts(lengths: Sequence[int], vocabulary: int, draw: torch.Generator) -> list[list[int]]:
    return [torch.randint(5, vocabulary, (length,), generator=draw).tolist() for length in lengths]


def batch_of(rows: int, group: int, vocabulary: int, pad_id: int, draw: torch.Generator) -> Batch:
    """Completions end anywhere in their second half."""
    prompts = random_texts([PROMPT] * (rows // group), vocabulary, draw)
    lengths = torch.randint(COMPLETION // 2, COMPLETION, (rows,), generator=draw).tolist()
    return collate([prompt for prompt in prompts for _ in range(group)], random_texts(lengths, vocabulary, draw), pad_id, "cpu")


def train(model: Any, batch: Batch, shared: bool) -> None:
    model.shares_prompts = shared
    completion_logprobs(model, batch).sum().backward()
    model.zero_grad()


def main() -> None:
    found = compare(list(SHAPES))
    table = Table("what", "shape", "rows", "group", "before, s", "after, s", "ratio", "least", "largest", box=None)
    for row in found:
        figures = [f"{row[key]:.3f}" for key in ("before", "after", "ratio", "least", "largest")]
        table.add_row(*(str(row[key]) for key in ("what", "shape", "rows", "group")), *figures)
    Console().print(table)
    if "--record" in sys.argv[1:]:
        write_json(DOCS / "results/bench/speed.json", origin(".") | {"runs": RUNS, "rows": found})
        write()
        print("docs/results/bench/speed.json is written, and the page that shows it; look at `git diff` and commit both")


if __name__ == "__main__":
    main()
