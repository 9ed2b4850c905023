"""Figures that params ask for, on the page: each in its row and column; nothing where nobody asked."""

from collections.abc import Callable

import pytest

from tests.tasks.report.conftest import Run
from tests.tasks.report.test_win_matrix import cells, recorded

MakeRun = Callable[..., Run]


@pytest.mark.parametrize(("titles", "caption"), [
    ({"refusal_rate": "harmful requests refused, %", "over_refusal_rate": "harmless requests refused, %"},
     "Refusals, with 95 % intervals over requests"),  # no classifier, no third column
    ({"chrf": "chrF", "self_bleu": "self-BLEU"}, "Overlap of texts, 0 to 100, with 95 % intervals over prompts"),
])  # fmt: skip
def test_every_figure_stands_in_its_row_and_column(make_run: MakeRun, titles: dict[str, str], caption: str) -> None:
    run = make_run()
    models = {"sft": run.metrics["sft"]} | {name: seeds["0"] for name, seeds in run.metrics["policy"].items()}
    expected = {}
    for i, (name, figures) in enumerate(models.items()):
        values = {key: 0.9 - i / 10 - j / 40 for j, key in enumerate(titles)}
        for key, value in values.items():
            figures |= {key: value, f"{key}_low": value - 0.05, f"{key}_high": value + 0.05}
        expected[name] = [[value, value - 0.05, value + 0.05] for value in values.values()]
    heads, rows = cells(run.write().page(), caption)
    assert heads == ["", *titles.values()]
    assert {name: [recorded(cell) for cell in line] for name, line in rows.items()} == expected


def test_nothing_where_nobody_asked(make_run: MakeRun) -> None:
    html = make_run().write().page()
    assert "Refusals" not in html
    assert "Text metrics" not in html
