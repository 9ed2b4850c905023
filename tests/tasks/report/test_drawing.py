"""Charts: labels that do not cover each other, averages that are averages, SVG that belongs to the page."""

from itertools import pairwise

import pytest

from tasks.report.drawing import (
    DARK,
    FONT,
    HEIGHT,
    LIGHT,
    PLOT,
    Line,
    end_labels,
    house_style,
    inline_svg,
    moving_average,
    over_steps,
)
from tests.tasks.report.conftest import STEPS


def test_moving_average_equals_the_slow_one() -> None:
    values = [float(i * i % 7) for i in range(50)]
    smooth = moving_average(values)
    reach = 2
    for i, found in enumerate(smooth):
        window = [values[j] for j in range(50) if abs(j - i) <= reach]
        assert found == pytest.approx(sum(window) / len(window))
    assert moving_average([3.0]) == [3.0]


@pytest.mark.parametrize("heights", [[0.0, 0.01, 0.02, 1.0], [1.0, 1.0, 1.0, 0.99], [0.0] * 12, [0.5]])
def test_labels_never_cover_each_other(heights: list[float]) -> None:
    with house_style():
        figure = over_steps("title", [Line("", [(0, 0.0), (1, 1.0)])])
        assert figure
        end_labels(figure.axes[0], [(y, f"name {i}", LIGHT["ink"]) for i, y in enumerate(heights)])
    places = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    gaps = [above - below for below, above in pairwise(places)]
    assert all(gap >= FONT / (72 * HEIGHT * PLOT[3]) for gap in gaps)
    assert len(places) == len(heights)
    assert places[-1] <= 1.03


def test_a_label_stands_where_its_curve_ends() -> None:
    with house_style():
        figure = over_steps("title", [Line("a", [(0, 10.0), (1, 90.0)]), Line("b", [(0, 10.0), (1, 30.0)])])
    assert figure
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    found = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert found == pytest.approx({"a": (90 - low) / (high - low), "b": (30 - low) / (high - low)})


def test_svg_is_themed_and_alone() -> None:
    with house_style():
        figure = over_steps("Loss <&>", [Line("$ppo$", [(i, 1 / (i + 1)) for i in range(STEPS)], LIGHT["series-1"])])
        assert figure
        svg = inline_svg(figure, "loss", "Loss <&>")
        assert svg == inline_svg(figure, "loss", "Loss <&>")
    assert svg.startswith('<svg viewBox="0 0 252 169.2" role="img" aria-label="Loss &lt;&amp;&gt;">')
    assert "var(--series-1)" in svg
    assert "$ppo$" in svg
    assert not [colour for colour in LIGHT.values() if colour in svg]
    assert not [word for word in ("http", "xmlns", "metadata", "DejaVu", "<!") if word in svg]
    assert DARK.keys() == LIGHT.keys()
