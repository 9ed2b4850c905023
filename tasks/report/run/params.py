"""The params of a run, as params.yaml has them: a table of key and value for each namespace that the policies depend on."""

import json
from html import escape
from typing import Any

from tasks.core.config import flatten
from tasks.report.run.recorded import Recorded
from tasks.report.tables import row, table


def section(recorded: Recorded) -> str:
    tables = "".join(params_table(namespace, values) for namespace, values in recorded.params.items())
    return f"""<p>What <code>params.yaml</code> says of the policies, and of the models that they start from and are scored by.
With the commit and the data, it is the experiment.</p><div class="pair">{tables}</div>"""


def params_table(namespace: str, values: dict[str, Any]) -> str:
    rows = [row([_code(key), _code(shown(value))]) for key, value in flatten(values).items()]
    return table(["key", "value"], rows, escape(namespace), "params")


def shown(value: Any) -> str:
    """As YAML would take it: null, true, 0.1, [0, 1], and text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    return f'<code class="data">{escape(text)}</code>'
