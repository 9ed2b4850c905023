"""Each model against each, and by kind of problem: every figure in the row and column that it belongs to."""

import re
from collections.abc import Callable
from itertools import combinations

import pytest

from tasks.core.files import Row
from tasks.report.drawing import Line, over_steps
from tests.tasks.report.conftest import Run

MakeRun = Callable[..., Run]
MODELS = ["sft", "policy.ppo.0", "policy.grpo.0", "policy.dpo.0"]


def matrix() -> list[Row]:
    """Of ppo and dpo alone p is small."""
    return [
        {
            "model": model, "against": against, "prompts": 61, "win_rate": 0.3 + 0.07 * i, "win_rate_low": 0.25 + 0.07 * i,
            "win_rate_high": 0.36 + 0.07 * i, "p": 0.01,
            "p_holm": 0.02 if (model, against) == ("policy.ppo.0", "policy.dpo.0") else 0.3 + i / 50,
        }
        for i, (model, against) in enumerate(combinations(MODELS, 2))
    ]  # fmt: skip


def kinds() -> list[Row]:
    return [
        {
            "model": model, "kind": kind, "prompts": 20 + j, "sampled_accuracy": 0.1 + 0.1 * i + 0.03 * j,
            "sampled_accuracy_low": 0.09 + 0.1 * i + 0.03 * j, "sampled_accuracy_high": 0.12 + 0.1 * i + 0.03 * j,
            "accuracy": 0.15 + 0.1 * i + 0.03 * j, "accuracy_low": 0.0, "accuracy_high": 1.0,
        }
        for i, model in enumerate(MODELS)
        for j, kind in enumerate(["one", "ex<tra"])
    ]  # fmt: skip


def cells(html: str, caption: str) -> tuple[list[str], dict[str, list[str]]]:
    """Heads, and by its first word each row's cells, as HTML."""
    begin = html.index(caption)
    table = html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    read = [[re.sub(r"<(?!data|/data|span class=.(?:right|wrong))[^>]+>", "", cell) for cell in line] for line in lines]
    return read[0], {line[0]: line[1:] for line in read[1:]}


def recorded(cell: str) -> list[float]:
    return [float(value) for value in re.findall(r'value="([^"]+)"', cell)]


def test_every_pair_stands_in_its_row_and_column(make_run: MakeRun) -> None:
    run = make_run()
    run.matrix = matrix()
    html = run.write().page()
    heads, rows = cells(html, "Win rates, paired on 61 test prompts")
    assert heads == ["wins against", "sft", "ppo", "grpo", "dpo"]
    names = dict(zip(MODELS, heads[1:], strict=True))
    for each in run.matrix:
        one, other = names[each["model"]], names[each["against"]]
        ours, theirs = rows[one][heads.index(other) - 1], rows[other][heads.index(one) - 1]
        win, low, high, p = each["win_rate"], each["win_rate_low"], each["win_rate_high"], each["p_holm"]
        assert recorded(ours) == [win, low, high, p]
        assert recorded(theirs) == pytest.approx([1 - win, 1 - high, 1 - low, p])
        assert ('class="right"' in ours, 'class="wrong"' in theirs) == ((one, other) == ("ppo", "dpo"),) * 2
        assert 'class="wrong"' not in ours
    assert [rows[name][place] for place, name in enumerate(heads[1:])] == ["–"] * 4


def test_every_kind_stands_under_its_name(make_run: MakeRun) -> None:
    run = make_run()
    run.kinds = kinds()
    html = run.write().page()
    heads, rows = cells(html, "Right answers by kind of problem")
    assert heads == ["", "one, 20 prompts", "ex&lt;tra, 21 prompts"]
    for i, name in enumerate(["sft", "ppo", "grpo", "dpo"]):
        for j in range(2):
            found = run.kinds[2 * i + j]
            expected = [found[key] for key in ("sampled_accuracy", "sampled_accuracy_low", "sampled_accuracy_high", "accuracy")]
            assert recorded(rows[name][j]) == expected


def test_without_them_nothing_is_said(make_run: MakeRun) -> None:
    html = make_run().write().page()
    assert "Each model against each" not in html
    assert "By kind of problem" not in html


def test_trainings_of_different_length_fill_the_chart() -> None:
    lines = [Line("ppo", [(step, 1.0) for step in range(5)]), Line("dpo", [(step, 2.0) for step in range(0, 101, 10)])]
    (axes,) = over_steps("Score", lines).axes
    assert [max(line.get_xdata()) for line in axes.lines] == [100.0] * 4
    assert axes.get_xlabel() == "% of its own steps"
    (axes,) = over_steps("Score", lines[:1]).axes
    assert (max(axes.lines[0].get_xdata()), axes.get_xlabel()) == (4, "step")
