"""The page of a pipeline run says first what matters, and little enough of it to be read."""

from flows.engine.headline import MOST_METRICS, leading, note, policy_note

FIGURES = {
    "sft.accuracy": 0.5, "sft.length": 20.0, "policy.ppo.0.accuracy": 0.6, "policy.ppo.0.accuracy_low": 0.55,
    "policy.ppo.0.accuracy_high": 0.65, "policy.ppo.0.kl": 0.3, "policy.ppo.0.sampled_accuracy": 0.55, "contaminated": 0.0,
}  # fmt: skip
ROWS = [
    {"stage": "policy@ppo-0", "state": "cached", "why": "", "run_id": "a1"},
    {"stage": "evaluate", "state": "ran", "why": "never run", "run_id": "b2"},
    {"stage": "report", "state": "ran", "why": "never run", "run_id": "c3"},
]


def test_the_figures_that_decide_come_first_and_are_few() -> None:
    assert list(leading({"evaluate": FIGURES, "sft": {"loss": 1.0}})) == [
        "evaluate/policy.ppo.0.sampled_accuracy", "evaluate/sft.accuracy", "evaluate/policy.ppo.0.accuracy",
        "evaluate/policy.ppo.0.kl", "evaluate/contaminated",
    ]  # fmt: skip
    many = {f"policy.{name}.0.{key}": 0.5 for name in range(40) for key in ("sampled_accuracy", "kl")}
    assert list(leading({"evaluate": many})) == [f"evaluate/policy.{name}.0.sampled_accuracy" for name in range(MOST_METRICS)]


def test_the_description_holds_the_verdict_a_table_and_links() -> None:
    text = note(ROWS, {"evaluate": FIGURES}, "ppo-0 is the champion", "1")
    assert text.startswith("**ppo-0 is the champion**\n\n| policy |")
    assert "| [policy@ppo-0](#/experiments/1/runs/a1) | 0.550 | 0.600 [0.550, 0.650] | - | 0.300 |" in text
    assert "| sft | - | 0.500 | - | - |" in text
    assert "The report page is an artifact of [report](#/experiments/1/runs/c3)." in text
    assert "| evaluate | [ran](#/experiments/1/runs/b2) | never run |" in text


def test_a_flow_without_an_evaluation_lists_its_stages() -> None:
    assert note(ROWS[:1], {}, "", "1").splitlines()[0] == "| stage | state | why |"


def test_a_policy_says_what_it_reached() -> None:
    text = policy_note("policy@ppo-0", {"accuracy": 0.6, "accuracy_low": 0.55, "accuracy_high": 0.65}, "d4", "1")
    assert text.splitlines() == [
        "policy@ppo-0, evaluated in [this pipeline run](#/experiments/1/runs/d4)", "", "- accuracy: 0.600 [0.550, 0.650]",
    ]  # fmt: skip
