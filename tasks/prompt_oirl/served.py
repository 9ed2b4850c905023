"""The fitted model as MLflow serves it: a row {query} is answered by the prompt to ask it with. No language model is asked.

    mlflow models serve -m models:/prompt_oirl@newest --env-manager local -p 5001
    curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations -d '{
        "inputs": [{"query": "Ann has 3 apples and eats one. How many are left?"}],
        "params": {"candidates": ["steps", "short"], "margin": 0.05}}'

Params: `candidates`, ids of the prompts to choose among, all unless said; `margin`, how much more r̂ must promise before the
prompt that is best on average is left, 0 unless said. MLflow drops other params, and says so in the server's log.

MLflow runs this file as it stands; it is shipped with the model (tasks/core/serving.py).
"""

from pathlib import Path
from typing import Any

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.serving import Answer, serve
from tasks.prompt_oirl.choose import choose, load_selector


def load(folder: Path) -> Answer:
    selector, reference = load_selector(folder)
    defaults: dict[str, Any] = {"candidates": list(selector.prompts), "margin": 0.0}

    def answer(rows: list[Row], params: dict[str, Any]) -> list[Row]:
        if unknown := [name for name in params if name not in defaults]:
            raise InputError(f"there is no param `{unknown[0]}`; there are {', '.join(defaults)}")
        return choose(selector, reference, [row["query"] for row in rows], **(defaults | params))

    return answer


serve(load)
