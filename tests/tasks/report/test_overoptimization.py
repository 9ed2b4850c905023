"""The forms of Gao et al.: what made the points is found again, and where right answers fall."""

from math import exp, log, sqrt

import pytest

from tasks.core.files import write_json
from tasks.report.run.charts import PROXY
from tasks.report.run.overoptimization import GOLD, KL, Form, budget_table, fit
from tests.tasks.report.test_page import MakeRun, Reader

KLS = [0.0, 0.1, 0.4, 0.9, 1.6, 2.5, 4.0]


def right(kl: float, form: Form, alpha: float, beta: float, sft: float = 0.3) -> float:
    d = sqrt(kl)
    return sft + (d * (alpha - beta * d) if form == "best of n" else d * (alpha - beta * log(d)) if d else 0.0)


@pytest.mark.parametrize(("form", "alpha", "beta", "peak"), [
    ("best of n", 0.4, 0.2, 1.0),  # d = 1
    ("best of n", 0.4, 0.1, 4.0),  # d = 2
    ("reinforcement", 0.2, 0.2, 1.0),  # ln d = 0
    ("reinforcement", 0.3, 0.2, exp(1.0)),  # ln d = ½
])  # fmt: skip
def test_a_form_is_found_again(form: Form, alpha: float, beta: float, peak: float) -> None:
    points = [(kl, right(kl, form, alpha, beta)) for kl in KLS]
    found = fit(points, form)
    assert found is not None
    assert (found.alpha, found.beta, found.peak) == pytest.approx((alpha, beta, peak))
    assert (found.reached, found.explained) == pytest.approx((4.0, 1.0))
    highest = right(peak, form, alpha, beta)
    assert all(right(peak * factor, form, alpha, beta) < highest for factor in (0.8, 1.25))


@pytest.mark.parametrize("form", ["best of n", "reinforcement"])
def test_what_only_rises_has_no_peak(form: Form) -> None:
    found = fit([(kl, right(kl, form, 0.2, -0.1)) for kl in KLS], form)
    assert found is not None
    assert found.beta == pytest.approx(-0.1)
    assert found.peak is None


def test_too_little_to_fit() -> None:
    assert fit([(0.0, 0.3), (0.1, 0.4), (0.2, 0.4)], "best of n") is None
    assert fit([(kl, 0.5) for kl in KLS], "reinforcement") is None
    assert fit([(1.0, 0.1 * i) for i in range(9)], "reinforcement") is None  # one distance only
    assert fit([(-0.01, 0.2), *((kl, right(kl, "reinforcement", 0.2, 0.1)) for kl in KLS)], "reinforcement") is not None


def test_the_page_tells_what_was_passed_from_what_was_not_reached(make_run: MakeRun) -> None:
    """ppo turns at 1 nat and goes on to 4; dpo would turn at 4 and ends at 2.5."""
    run = make_run()
    run.best_of_n = [{"n": n, "kl": kl, "sampled_accuracy": right(kl, "best of n", 0.4, 0.2)} for n, kl in enumerate(KLS, 1)]
    run.write()
    for name, (alpha, beta, kls) in {"ppo": (0.2, 0.2, KLS), "dpo": (0.1 * (1 + log(2)), 0.1, KLS[:6])}.items():
        steps = [{"step": i, KL: kl, PROXY: kl, GOLD: right(kl, "reinforcement", alpha, beta)} for i, kl in enumerate(kls)]
        write_json(run.folder / f"reports/policy/{name}-0/history.json", steps)
    write_json(run.folder / "reports/policy/grpo-0/history.json", [])
    recorded = run.load()
    (table,) = Reader(budget_table(recorded)).tables
    shown = [[text for _, text in row["values"]] for row in table[1:]]
    assert shown == [
        ["0.40", "0.20", "100.0", "4.00", "1.00"], ["0.20", "0.20", "100.0", "4.00", "1.00"],
        ["0.17", "0.10", "100.0", "2.50"],
    ]  # fmt: skip
    assert ["not within reach" in row["text"] for row in table[1:]] == [False, False, True]
    assert budget_table(recorded) in run.page()
    recorded.best_of_n.clear()
    for policy in recorded.policies:
        policy.history.clear()
    assert budget_table(recorded) == ""
