"""The section on small chains says what was recorded, and yes only where the whole interval is where it should be."""

from collections.abc import Callable

import pytest

from tasks.report.drawing import house_style
from tasks.report.run import tabular
from tests.tasks.report.conftest import Run

MakeRun = Callable[..., Run]


def section(run: Run) -> str:
    return tabular.section(run.write().load(), {})


def verdict(html: str, key: str) -> str:
    row = html[html.index(tabular.CLAIMS[key][0]) :]
    return row[: row.index("</tr>")].removesuffix("</td>").rpartition("<td>")[2]


def test_every_recorded_figure_is_shown(make_run: MakeRun) -> None:
    run = make_run()
    html = section(run)
    assert [value for value in run.imitation.values() if f'value="{value}"' not in html] == []


@pytest.mark.parametrize(
    ("key", "low", "high", "says"),
    [
        ("irl_regret", 0.001, 0.009, "yes"),
        ("irl_regret", 0.001, 0.011, "no"),
        ("exponent_behavior_cloning", 1.6, 2.0, "yes"),
        ("exponent_behavior_cloning", 1.4, 2.0, "no"),
        ("gradient_coverage", 0.93, 0.97, "yes"),
        ("gradient_coverage", 0.9, 0.94, "no"),
        ("untrained_regret", 0.1, 0.2, ""),
    ],
)
def test_only_whole_intervals_show_something(make_run: MakeRun, key: str, low: float, high: float, says: str) -> None:
    run = make_run()
    run.imitation |= {f"{key}_low": low, f"{key}_high": high}
    assert verdict(section(run), key) == says


def test_the_chart_draws_every_horizon_with_its_interval(make_run: MakeRun) -> None:
    run = make_run()
    recorded = run.write().load()
    with house_style():
        figure = tabular.charts(recorded)["tabular_horizon"]
    assert figure
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.1, 0.2, 0.4]] * 3
    assert sorted(text.get_text() for text in axes.texts) == ["BC 0.2", "DAgger 0.2", "GAIL 0.2"]


def test_contaminated_data_do_not_flatter_it(make_run: MakeRun) -> None:
    run = make_run()
    run.metrics["contaminated"] = 1
    html = run.write().page()
    begin = html.index('<section id="tabular">')
    shown = html[begin : html.index("</section>", begin)]
    assert "<caption>" in shown
    assert "Contaminated" not in shown
