"""The fitted model as MLflow serves it: a row {query} is answered by the prompt to ask it with. No language model is asked.

    mlflow models serve -m models:/prompt_oirl@newest --env-manager local -p 5001
    curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations -d '{
        "inputs": [{"query": "Ann has 3 apples and eats one. How many are left?"}],
        "params": {"candidates": ["steps", "short"]}}'

MLflow runs this file as it stands; it is shipped with the model (tasks/core/serving.py).
"""

from pathlib import Path
from typing import Any

from tasks.core.files import Row
from tasks.core.serving import Answer, serve
from tasks.prompt_oirl.choose import choose, load_selector


def load(folder: Path) -> Answer:
    selector = load_selector(folder)

    def answer(rows: list[Row], params: dict[str, Any]) -> list[Row]:
        return choose(selector, [row["query"] for row in rows], params.get("candidates", list(selector.prompts)))

    return answer


serve(load)
