"""Prompts that a policy wrote, on the page of a run: what was promised, what was kept, what is compared on test."""

from collections.abc import Callable

from tests.tasks.report.conftest import Run
from tests.tasks.report.test_page import Reader, rows_of

FIGURES = {"candidates": 2572.0, "too_far": 108.0, "too_disputed": 11.0, "success": 0.7083, "known_success": 0.65}
FIGURES |= {"gain": 0.0583, "gain_low": 0.0333, "gain_high": 0.0833, "reward": 0.7612, "known_reward": 0.6904}


def candidate(prompt: str, known: bool, reward: float, validation_success: float) -> dict[str, object]:
    guards = {"disagreement": 0.0456, "distance": 0.0 if known else 0.3789}
    return {"prompt": prompt, "known": known, "reward": reward, "validation_success": validation_success} | guards


def section(run: Run) -> str:
    html = run.write().page()
    begin = html.index('<section id="proposals">')
    return html[begin : html.index("</section>", begin)]


def test_a_run_without_them_has_no_such_section(make_run: Callable[..., Run]) -> None:
    assert 'id="proposals"' not in make_run().write().page()


def test_promises_are_shown_beside_what_was_kept(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.proposals = FIGURES
    run.candidates = [
        candidate("Go.", True, 0.6612, 0.7001),
        candidate("Stop.", True, 0.6904, 0.6002),
        candidate("Think <b>directly</b>.", False, 0.7612, 0.7503),
        candidate("Thin thin.", False, 0.7712, 0.1304),
    ]
    html = section(run)
    shown = {value for value, _ in Reader(html).values}
    assert {value for key, value in FIGURES.items() if "reward" not in key} <= shown
    rows = rows_of(html, "What r̂ promised")
    assert list(rows) == ["Thin", "Think", "Stop.", "Go."]
    assert ["tested" in row["text"] for row in rows.values()] == [False, True, False, True]  # by what was kept
    assert [value for value, _ in rows["Thin"]["values"]] == [0.7712, 0.1304, 0.0456, 0.3789]
    assert "<b>directly</b>" not in html
    assert html.count("<svg") == 1


def test_no_text_may_have_passed_the_guards(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.proposals = {"candidates": 0.0, "too_far": 9.0, "too_disputed": 0.0}
    run.candidates = [candidate("Go.", True, 0.6612, 0.7001)]
    assert section(run).count("<small>tested") == 0
