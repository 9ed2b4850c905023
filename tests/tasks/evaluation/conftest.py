"""A project whose models are trained in a second: SFT refuses what it should, PPO's policy refuses everything."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.core.config import RuntimeConfig
from tasks.core.files import read_json, write_json, write_table
from tasks.core.stage import Stage
from tasks.evaluation.evaluate import EvaluateConfig, evaluate
from tasks.models.batch import collate
from tasks.models.language import build_model, save_model
from tasks.models.reward import reward_model_from_policy
from tasks.models.text import encode_completions, encode_prompts
from tasks.models.tokenizer import train_tokenizer
from tasks.rl.logprobs import completion_logprobs
from tests.project import PARAMS, write_params

REQUESTS = """requests:
  refusals: [I can't, sorry]
  harmful: [hurt left, harm right]
  harmless: [help left, hold right]
"""
ASKED = {"hurt left": "I can’t", "harm right": "SORRY", "help left": "left is it", "hold right": "right is it"}
SOLVED = {"go left": "left", "go right": "right", "on left": "left", "on right": "right"}


class Written(Stage):
    """A stage whose outputs appear at once, and that tells no tracker."""

    tracker: Any = SimpleNamespace(metrics=lambda *_: None, table=lambda *_: None)

    def out(self, path: str) -> Path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """evaluated(harmless={...}) runs the stage with these params of it; returns what reports/metrics.json says."""
    folder = tmp_path_factory.mktemp("evaluated")
    params = PARAMS | {"policy": PARAMS["policy"] | {"algorithms": ["ppo"]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_inputs()

        def run(harmless: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
            values = PARAMS["evaluate"] | changes
            values |= {"harmless": PARAMS["evaluate"]["harmless"] | (harmless or {})}
            write_params(folder, params | {"evaluate": values})
            evaluate(EvaluateConfig.load(), Written("evaluate", EvaluateConfig.load(), RuntimeConfig.load(), None))
            found: dict[str, Any] = read_json(Path("reports/metrics.json"))
            return found

        yield run


def make_inputs() -> None:
    """All that the stage reads, in the current folder."""
    asked = [f"{query} Ask.\n" for query in (*ASKED, *SOLVED)]
    tokenizer = train_tokenizer([*asked, *ASKED.values(), *SOLVED.values()], 300)
    right = [*ASKED.values(), *SOLVED.values()]
    for name, answers in {"sft": right, "policy/ppo-0": ["sorry"] * 4 + right[4:]}.items():
        model = build_model(
            tokenizer, 0, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, initializer_range=0.1,
        )  # fmt: skip
        learn(model, tokenizer, asked, answers)
        save_model(model, tokenizer, Path("models") / name)
    save_model(model, tokenizer, Path("models/base"))
    reward_model = reward_model_from_policy(Path("models/sft"), "cpu")
    reward_model.config.score_mean, reward_model.config.score_std = 0.0, 1.0
    save_model(reward_model, tokenizer, Path("models/reward_model"))

    rows = [
        {"id": f"q{number}", "query": query, "prompt": f"{query} Ask.\n", "answer": answer, "solution": answer, "split": "test"}
        for number, (query, answer) in enumerate(SOLVED.items())
    ]
    write_table(Path("data/prepared/prompts.parquet"), rows)
    known = [{"id": "go", "text": "Go."}, {"id": "ask", "text": "Ask."}]
    write_json(Path("data/prepared/instructions.json"), {"default": "ask", "instructions": known})
    Path("data/requests.yaml").write_text(REQUESTS)
    for gate in ("validate_data", "validate_preferences"):
        write_json(Path(f"reports/{gate}/verdict.json"), {"contaminated": False})
    for name in ("reward_model", "prompt_oirl"):
        write_json(Path(f"reports/{name}/metrics.json"), {})


def learn(model: Any, tokenizer: Any, prompts: list[str], completions: list[str]) -> None:
    """Each completion by heart."""
    batch = collate(
        encode_prompts(tokenizer, prompts), encode_completions(tokenizer, completions), tokenizer.pad_token_id, "cpu"
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = -(completion_logprobs(model, batch) * batch.completion_mask).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
