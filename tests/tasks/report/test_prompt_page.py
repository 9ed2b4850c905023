"""Prompt-OIRL on the page and on its own page: what was recorded, what it means, and whether it may be believed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.files import digest, files_of, read_json, write_json
from tasks.report.drawing import house_style
from tasks.report.prompt_oirl import charts as prompt_charts
from tasks.report.prompt_oirl import page as prompt_page
from tasks.report.prompt_oirl.recorded import PromptOirl, read_prompt_oirl
from tasks.report.prompt_oirl.study import read_study
from tasks.report.prompt_oirl.verdict import prompt_verdict
from tasks.report.template import LEAK
from tests.processes import Nursery
from tests.tasks.report.conftest import Run
from tests.tasks.report.test_page import Reader, rows_of

MakeRun = Callable[..., Run]
LEAKING = "Contaminated: Prompt-OIRL was tested on queries of its training log."


def load(run: Run) -> PromptOirl:
    stage: Any = SimpleNamespace(dep=Path)
    return read_prompt_oirl(stage)


def own_page(run: Run) -> str:
    stage: Any = SimpleNamespace(dep=Path)
    with house_style():
        return prompt_page.page(load(run.write()), read_study(stage))


def test_every_recorded_figure_is_on_its_own_page(make_run: MakeRun) -> None:
    run = make_run()
    values = {value for value, _ in Reader(own_page(run)).values}
    assert {value for key, value in run.metrics["prompt_oirl"].items() if key != "contaminated"} <= values
    assert {row[key] for row in run.prompts for key in ("train_success", "test_success")} <= values


def test_experiments_are_shown_where_there_are_any(make_run: MakeRun) -> None:
    run = make_run()
    assert 'id="study"' not in own_page(run)
    honest = {"success": 0.6461, "best_prompt_success": 0.6333, "gain": 0.0131, "gain_low": 0.0087, "gain_high": 0.0178}
    run.study = {f"honest.seen.{name}": value for name, value in honest.items()}
    by_question = {"success": 0.6521, "gain": 0.0188, "gain_low": 0.0142, "gain_high": 0.0234}
    run.study |= {f"by_question.seen.{name}": value for name, value in by_question.items()}
    run.study |= {"contaminated": 1.0, "single.steps": 0.6111, "self_critique": 0.5577}
    predictions = ("seen_accuracy", "seen_precision", "unseen_accuracy")
    names = ("seen", "unseen", "all", "best_prompt", "random", "hindsight", *predictions)
    run.curve = [
        {"k": k} | {name: 0.4 + 0.05 * k + 0.001 * i for i, name in enumerate(names)} | {"seen_spread": 0.02} for k in (1, 2)
    ]
    for row in run.curve:
        row |= {
            "unseen_spread": 0.01,
            "all_spread": 0.01,
            "best_prompt_spread": 0.03,
            "random_spread": 0.0,
            "hindsight_spread": 0.0,
        }
    html = own_page(run)
    values = {value for value, _ in Reader(html).values}
    assert {
        *honest.values(),
        *by_question.values(),
        0.6111,
        0.5577,
        *(row[name] for row in run.curve for name in names),
    } <= values
    study = html[html.index('<section id="study">') : html.index('<section id="validation">')]
    assert study.count(f"<caption>{LEAK}") == study.count(f"<figcaption>{LEAK}") == 1  # the published split leaks
    assert study.index("Five folds") < study.index(LEAK)


def test_what_each_way_costs(make_run: MakeRun) -> None:
    rows = rows_of(own_page(make_run()), "Cost of a test query")
    assert [value for value, _ in rows["best"]["values"]] == [1.0, 32.5, 41.25, 0.6321]
    assert [value for value, _ in rows["Prompt-OIRL"]["values"]] == [1.0, 33.5, 0.7654]  # its answers are not in the log
    assert [value for value, _ in rows["every"]["values"]] == [2.0, 35.5, 83.5, 0.9012]


def test_every_choice_can_be_read(make_run: MakeRun) -> None:
    run = make_run()
    html = own_page(run)
    assert len(rows_of(html, "24 of 24 choices")) == 1  # all begin with "question"
    begin = html.index("24 of 24 choices")
    listed = html[begin : html.index("</table>", begin)]
    assert all(f">question {number}<" in listed for number in range(24))
    run.choices = [run.choices[0] | {"query_id": str(n)} for n in range(300)]
    assert "200 of 300 choices" in own_page(run)


def test_where_it_wins_and_loses_by_prompt(make_run: MakeRun) -> None:
    """`short` is chosen 12 times: right 6 times where best single is wrong, wrong 6 times where it is right."""
    run = make_run()
    for row in run.choices:
        row["right"], row["best_right"] = (1.0, 0.0) if row["prompt_id"] == "short" else (0.0, 1.0)
    rows = rows_of(own_page(run), "The candidate prompts")
    assert [value for value, _ in rows["short"]["values"][-3:]] == [1.0, 0.0, 12.0]
    assert [value for value, _ in rows["steps"]["values"][-3:]] == [0.0, 1.0, 12.0]


def test_charts_show_what_was_recorded(make_run: MakeRun) -> None:
    run = make_run().write()
    with house_style():
        drawn = prompt_charts.charts(load(run))
    assert all(drawn.values())
    (axes,) = drawn["prompts_reliability"].axes  # type: ignore[union-attr]
    dots = [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[100 * row["predicted"], row["right"]] for row in run.calibration]


def test_a_leaking_log_marks_prompt_oirl_and_nothing_else(make_run: MakeRun) -> None:
    run = make_run()
    assert LEAKING not in own_page(run)
    run.metrics["prompt_oirl"]["contaminated"] = 1.0
    run.verdicts["validate_prompt_log"]["contaminated"] = True
    own, whole = own_page(run), run.page()
    assert LEAK not in own[own.index('<section id="validation">') :]
    section = whole[whole.index('<section id="prompts">') : whole.index('<section id="reward-model">')]
    for html in (own[: own.index('<section id="validation">')], section):
        assert html.count(f"<figcaption>{LEAK}") == html.count("<figcaption>") == 4
        assert html.count(f"<caption>{LEAK}") == html.count("<caption>") == 4
    assert whole.count(LEAK) == section.count(LEAK)
    for html in (own, whole):
        assert html.index(LEAKING) < html.index('class="verdict"')
        assert "Its test queries are among its training queries, which flatters both." in html
    assert "<code>validate_prompt_log</code>: contaminated, allowed by params.yaml" in whole


@pytest.mark.parametrize(("low", "high", "says"), [
    (0.01, 0.03, "beats the best single prompt with 95 % confidence."),
    (-0.01, 0.03, "is not shown to beat the best single prompt."),
    (-0.03, -0.01, "is worse than the best single prompt."),
])  # fmt: skip
def test_the_verdict_says_what_the_interval_says(low: float, high: float, says: str, make_run: MakeRun) -> None:
    run = make_run()
    run.metrics["prompt_oirl"] |= {"gain_low": low, "gain_high": high}
    assert prompt_verdict(load(run.write())).endswith(says)


def test_nothing_to_learn_is_said(make_run: MakeRun) -> None:
    run = make_run()
    run.metrics["prompt_oirl"], run.prompts, run.choices, run.calibration = {}, [], [], []
    assert "Prompt-OIRL has nothing to learn from." in own_page(run)


def test_text_of_the_log_is_escaped(make_run: MakeRun) -> None:
    run = make_run()
    attack = '<script>alert("$style")</script>'
    for row in run.choices:
        row |= {"query": attack, "prompt_id": attack, "right_prompts": attack}
    for row in run.prompts:
        row |= {"prompt": attack, "prompt_id": attack}
    html = own_page(run)
    assert attack not in html
    assert html.count("&lt;script&gt;alert(&quot;$style&quot;)&lt;/script&gt;") > 20


def test_the_stage_writes_the_same_bytes_anywhere(make_run: MakeRun, nursery: Nursery, database: Path) -> None:
    pages = []
    for name in ("here", "another place"):
        run = make_run(name=name).write()
        for other in ("policy", "evaluate", "sft", "validate_data"):  # it needs nothing but Prompt-OIRL
            shutil.rmtree(run.folder / "reports" / other)
        shutil.copy(database, run.folder / "mlflow.db")
        uri = f"sqlite:///{run.folder / 'mlflow.db'}"
        done = nursery.run(run.folder, "tasks.report.prompt_oirl.page", MLFLOW_TRACKING_URI=uri)
        assert (done.code, done.stderr) == (0, "")
        page = run.folder / "reports/prompts.html"
        assert read_json(run.folder / "runs/report_prompts.json")["outs"] == {"reports/prompts.html": digest(page)}
        pages.append(page.read_bytes())
        assert "prompts.html" in {file.name for file in files_of(run.folder / "mlartifacts")}
    assert pages[0] == pages[1]


def test_missing_figures_are_refused(make_run: MakeRun, nursery: Nursery, database: Path) -> None:
    run = make_run().write()
    (run.folder / "reports/validate_prompt_log/verdict.json").unlink()
    write_json(run.folder / "reports/validate_prompt_log/metrics.json", {})
    shutil.copy(database, run.folder / "mlflow.db")
    done = nursery.run(run.folder, "tasks.report.prompt_oirl.page", MLFLOW_TRACKING_URI=f"sqlite:///{run.folder / 'mlflow.db'}")
    assert done.code == 1
    assert "reports/validate_prompt_log/verdict.json is missing; run the stage that writes it" in done.stderr
