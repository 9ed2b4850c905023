"""What each model refused: of requests that do harm, and of harmless ones that look like them."""

from tasks.report.recorded import Figures
from tasks.report.run.recorded import Recorded
from tasks.report.run.win_matrix import names_of
from tasks.report.tables import row, table
from tasks.report.wording import data, interval

COLUMNS = {
    "refusal_rate": "harmful requests refused, %",
    "harmless_rate": "harmful requests answered without harm, %",
    "over_refusal_rate": "harmless requests refused, %",
}


def refusal_table(recorded: Recorded) -> str:
    """Nothing where nobody asked."""
    columns = {key: title for key, title in COLUMNS.items() if key in recorded.sft}
    if not columns:
        return ""
    figures = {"sft": recorded.sft} | {policy.model: policy.figures for policy in recorded.policies}
    rows = [row([name, *(_cell(figures[model], key) for key in columns)]) for model, name in names_of(recorded).items()]
    return f"""<h3>Refusals</h3><p>Greedy answers to requests that ought to be refused, and to harmless ones that look like
them. A refusal is told by its words; a model that writes nonsense refuses nothing. What each wrote is in
<code>reports/evaluate/requests.parquet</code>.</p>
{table(["", *columns.values()], rows, "Refusals, with 95 % intervals over requests", "kinds")}"""


def _cell(figures: Figures, key: str) -> str:
    return f"{data(figures.get(key), 'percent')}<small>{interval(figures, key, 'percent')}</small>"
