"""A policy as MLflow serves it: a row {prompt} is answered by a completion.

    mlflow models serve -m models:/policy@champion --env-manager local -p 5001
    curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations -d '{
        "inputs": [{"prompt": "Ann has 3 apples and eats one. How many are left?"}], "params": {"temperature": 0.0}}'

A prompt is the whole text that the policy continues, as `task.prompt_format` makes it of a query and an instruction. MLflow
runs this file as it stands; it is shipped with the model (tasks/core/serving.py).
"""

from pathlib import Path
from typing import Any

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.serving import Answer, serve

ROWS_AT_ONCE = 32


def load(folder: Path) -> Answer:
    from tasks.models.generate import sample  # here: MLflow runs this file also where it only saves the model
    from tasks.models.language import load_policy
    from tasks.models.text import decode, encode_prompts

    model, tokenizer = load_policy(folder, "cpu")

    def answer(rows: list[Row], params: dict[str, Any]) -> list[Row]:
        temperature, limit = float(params.get("temperature", 0.0)), int(params.get("max_new_tokens", 128))
        if temperature < 0 or limit < 1:
            raise InputError("`temperature` must be at least 0, `max_new_tokens` at least 1")
        completions: list[Row] = []
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            ids = encode_prompts(tokenizer, [row["prompt"] for row in rows[begin : begin + ROWS_AT_ONCE]])
            chance = seeds.generator(int(params.get("seed", 0)), "served", begin)
            rollout = sample(model, tokenizer, ids, max_new_tokens=limit, temperature=temperature, generator=chance)
            completions += [{"completion": decode(tokenizer, written)} for written in rollout.completions()]
        return completions

    return answer


serve(load)
