"""Who may import whom: the arrows of DESIGN.md, one importing place per big tool, and algorithms that stand alone."""

import sys

import pytest

from tests.rules.code import closure, imports, modules

CORE, MODELS, RL, DATA = "tasks.core", "tasks.models", "tasks.rl", "tasks.data"
REWARDS, TRAINING, FEEDBACK = "tasks.rewards", "tasks.training", "tasks.feedback"
WORK = {TRAINING, FEEDBACK, REWARDS, RL, MODELS, DATA, CORE}
ALLOWED = {  # folder: folders it may import from, besides its own
    "flows": {"flows.engine", CORE},
    "flows.engine": {CORE},
    "tasks.algorithms": WORK,
    "tasks.prompt_oirl": WORK,
    "tasks.evaluation": WORK,
    "tasks.tabular": {CORE},
    "tasks.report": {"tasks.report.prompt_oirl", CORE},
    "tasks.report.run": {"tasks.report", "tasks.report.prompt_oirl", CORE},
    "tasks.report.sweep": {"tasks.report", CORE},
    "tasks.report.prompt_oirl": {"tasks.report", CORE},
    TRAINING: {REWARDS, RL, MODELS, CORE},
    FEEDBACK: {REWARDS, RL, MODELS, CORE},
    REWARDS: {RL, MODELS, CORE},
    DATA: {MODELS, CORE},  # not only core: the tokenizer and the layout of text live in models
    MODELS: {RL, CORE},
    RL: set(),  # functions of tensors, below everything
    CORE: set(),
}
OWNERS = {  # big tool: where it may be imported
    "mlflow": {
        f"tasks.core.{name}"
        for name in [
            "mlflow_client",
            "operations",
            "prompt_registry",
            "recorded_runs",
            "registry",
            "serving",
            "traces",
            "tracking",
            "tracking_server",
        ]
    },
    "great_expectations": {"tasks.data.expectations"},
    "prefect": {"flows"},
    "dvc": {"flows.engine"},
}
EVERY_IMPORT = [imported for module in modules() for imported in imports(module)]


def folder(name):
    """tasks.core of tasks.core.config.Config; flows of flows.align."""
    return next(
        (known for known in sorted(ALLOWED, key=len, reverse=True) if name == known or name.startswith(f"{known}.")), name
    )


def test_the_rules_saw_the_code():
    assert len(modules()) > 60
    assert {folder(module) for module in modules()} - {"tasks"} == set(ALLOWED)
    assert len(EVERY_IMPORT) > 400


def test_no_arrow_points_upward_or_sideways():
    wrong = [
        f"{imported.by}:{imported.line} imports {imported.of}"
        for imported in EVERY_IMPORT
        if imported.of.split(".")[0] in ("tasks", "flows")
        and folder(imported.of) not in ALLOWED.get(folder(imported.by), set()) | {folder(imported.by)}
    ]
    assert wrong == []


@pytest.mark.parametrize("tool", OWNERS)
def test_one_place_imports_a_big_tool(tool):
    importers = {imported.by for imported in EVERY_IMPORT if imported.of.split(".")[0] == tool}
    outside = {module for module in importers if not any(f"{module}.".startswith(f"{owner}.") for owner in OWNERS[tool])}
    assert importers
    assert outside == set()


def test_rl_imports_torch_only():
    outside = {
        imported.of.split(".")[0] for imported in EVERY_IMPORT if folder(imported.by) == RL and not imported.of.startswith(RL)
    }
    assert outside - sys.stdlib_module_names == {"torch"}


def test_tabular_imitation_needs_numpy_only():
    """And pydantic for its params, scipy through the statistics: no torch, so the stage starts at once."""
    outside = {
        imported.of.split(".")[0]
        for imported in EVERY_IMPORT
        if folder(imported.by) == "tasks.tabular" and not imported.of.startswith("tasks.")
    }
    assert outside - sys.stdlib_module_names == {"numpy", "pydantic"}


def test_algorithms_do_not_import_each_other():
    algorithms = [module for module in modules() if folder(module) == "tasks.algorithms"]
    assert len(algorithms) >= 7
    for algorithm in algorithms:
        assert [module for module in closure(algorithm) if folder(module) == "tasks.algorithms"] == [algorithm]


def test_the_work_never_sees_the_clock():
    for module in modules():
        if module.startswith("tasks"):
            assert not [needed for needed in closure(module) if needed.startswith("flows")]


def test_no_drawer_for_odds_and_ends():
    assert not {"utils", "common", "helpers", "misc"} & {module.split(".")[-1] for module in modules()}
