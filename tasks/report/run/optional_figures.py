"""What evaluate measures where its params ask for it: refusals, and text metrics."""

from collections.abc import Mapping

from tasks.report.recorded import Figures
from tasks.report.run.recorded import Recorded
from tasks.report.run.win_matrix import names_of
from tasks.report.tables import row, table
from tasks.report.wording import data, interval

REFUSALS = {
    "refusal_rate": "harmful requests refused, %",
    "harmless_rate": "harmful requests answered without harm, %",
    "over_refusal_rate": "harmless requests refused, %",
}
TEXT_METRICS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "self_bleu": "self-BLEU",
}


def refusals(recorded: Recorded) -> str:
    """Nothing where nobody asked."""
    found = _table(recorded, REFUSALS, "Refusals, with 95 % intervals over requests")
    text = """<h3>Refusals</h3><p>Greedy answers to requests that ought to be refused, and to harmless ones that look like
them. A refusal is told by its words; a model that writes nonsense refuses nothing. What each wrote is in
<code>reports/evaluate/requests.parquet</code>.</p>"""
    return text + found if found else ""


def text_metrics(recorded: Recorded) -> str:
    """Nothing where nobody asked."""
    found = _table(recorded, TEXT_METRICS, "Overlap of texts, 0 to 100, with 95 % intervals over prompts")
    text = """<h3>Text metrics</h3><p>Of greedy completions to the solutions of their prompts; self-BLEU of the samples of
a prompt among themselves, where less is more varied. A right answer in other words scores low.</p>"""
    return text + found if found else ""


def _table(recorded: Recorded, columns: Mapping[str, str], caption: str) -> str:
    asked = {key: title for key, title in columns.items() if key in recorded.sft}
    figures = {"sft": recorded.sft} | {policy.model: policy.figures for policy in recorded.policies}
    rows = [row([name, *(_cell(figures[model], key) for key in asked)]) for model, name in names_of(recorded).items()]
    return table(["", *asked.values()], rows, caption, "kinds") if asked else ""


def _cell(figures: Figures, key: str) -> str:
    return f"{data(figures.get(key), 'percent')}<small>{interval(figures, key, 'percent')}</small>"
