"""The fitted model as MLflow serves it: a row {query} is answered by the prompt to ask it with. No language model is asked.

    mlflow models serve -m models:/prompt_oirl@newest --env-manager local -p 5001
    curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations -d '{
        "inputs": [{"query": "Ann has 3 apples and eats one. How many are left?"}],
        "params": {"candidates": ["steps", "short"], "margin": 0.05}}'

Params: `candidates`, ids of the prompts to choose among, all unless said; `margin`, how much more r̂ must promise before the
prompt that is best on average is left, 0 unless said; `budget`, calls for a query on average, 1 unless said. With a budget the
caller asks the prompt it is told and sends the query again with all `completions` so far, until `answer` has a text. MLflow
drops other params, and says so in the server's log.

MLflow runs this file as it stands; it is shipped with the model (tasks/core/serving.py).
"""

from pathlib import Path
from typing import Any

from tasks.core.errors import InputError
from tasks.core.files import Row, read_json
from tasks.core.serving import Answer, serve
from tasks.prompt_oirl.cascade import NONE, Cascade, default_params, next_call
from tasks.prompt_oirl.choose import VERSIONS, choose, load_selector, with_versions


def load(folder: Path) -> Answer:
    selector, reference = load_selector(folder)
    cascade = Cascade.load(file) if (file := folder / "cascade.npz").exists() else None
    uris = read_json(file) if (file := folder / VERSIONS).exists() else {}
    defaults = default_params(selector.prompts)

    def answer(rows: list[Row], params: dict[str, Any]) -> list[Row]:
        if unknown := [name for name in params if name not in defaults]:
            raise InputError(f"there is no param `{unknown[0]}`; there are {', '.join(defaults)}")
        asked = defaults | params
        budget, completions = asked.pop("budget"), list(asked.pop("completions"))
        completions = [] if completions == NONE else completions
        queries = [row["query"] for row in rows]
        if budget == 1 and not completions:
            return with_versions(choose(selector, reference, queries, **asked), uris)
        if cascade is None:
            raise InputError("`budget`: the log of this model has too few completions to learn from; leave it out")
        if completions and len(queries) > 1:
            raise InputError(f"`completions` belong to one query, and there are {len(queries)}; send one query a request")
        rows = [next_call(cascade, selector, reference, query, completions, budget, **asked) for query in queries]
        return with_versions(rows, uris)

    return answer


serve(load)
