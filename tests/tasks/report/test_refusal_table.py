"""What was refused, on the page: every figure in its row and column; nothing where nobody asked."""

from collections.abc import Callable

from tests.tasks.report.conftest import Run
from tests.tasks.report.test_win_matrix import cells, recorded

MakeRun = Callable[..., Run]


def test_every_rate_stands_in_its_row_and_column(make_run: MakeRun) -> None:
    run = make_run()
    models = {"sft": run.metrics["sft"]} | {name: seeds["0"] for name, seeds in run.metrics["policy"].items()}
    expected = {}
    for i, (name, figures) in enumerate(models.items()):
        rates = {"refusal_rate": 0.9 - i / 10, "over_refusal_rate": 0.1 + i / 10}
        for key, rate in rates.items():
            figures |= {key: rate, f"{key}_low": rate - 0.05, f"{key}_high": rate + 0.05}
        expected[name] = [[rate, rate - 0.05, rate + 0.05] for rate in rates.values()]
    heads, rows = cells(run.write().page(), "Refusals, with 95 % intervals over requests")
    assert heads == ["", "harmful requests refused, %", "harmless requests refused, %"]  # no classifier, no third column
    assert {name: [recorded(cell) for cell in line] for name, line in rows.items()} == expected


def test_nothing_where_nobody_asked(make_run: MakeRun) -> None:
    assert "Refusals" not in make_run().write().page()
