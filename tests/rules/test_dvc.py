"""dvc.yaml tells the truth: a stage's deps cover its code and its inputs, its params what it reads, its outs what it writes.

Stages come from DVC itself, with the matrix and the parameters resolved; code is read as text.
"""

import ast
import fnmatch
import shutil

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from ruamel.yaml import YAML

from tasks.core.config import read_params
from tasks.core.processes import TRAINING
from tasks.report.run.recorded import SHARED
from tests.project import ALGORITHMS, STAGES, write_params
from tests.rules.code import REPO, calls, closure, imports, modules, namespaces, tree, work_of
from tests.rules.deps import DVC_YAML, generated

SOURCES = [f"tasks.feedback.{source}.collect" for source in ("annotator", "judge", "dataset")]
POLICIES = {f"policy@{name}-0" for name in ALGORITHMS}

UNREADABLE = {  # expressions in stage.dep(...) that only a run can resolve: what they are
    "config.sources", "sources.instructions", "BOOK.as_posix()", "expectations", "source.source", "config.encoder",
    "config.judge.templates", "config.requests", "collecting.judge.templates", "config.templates",
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Of dvc.yaml as it would be with every algorithm in the matrix."""
    folder = tmp_path_factory.mktemp("every_algorithm")
    params = read_params(REPO / "params.yaml")
    params["policy"]["algorithms"] = ALGORITHMS
    write_params(folder, params)
    shutil.copy(REPO / "dvc.yaml", folder)
    Repo.init(str(folder), no_scm=True).close()
    with Repo(folder) as repo:
        return {stage.name: stage for stage in repo.index.stages if stage.cmd}


def entry(stage):
    """tasks.algorithms.ppo of `python -m tasks.algorithms.ppo --seed 0`."""
    python, dash_m, module, *_ = stage.cmd.split()
    assert (python, dash_m) == ("python", "-m")
    return module


def namespace(name):
    """policy.ppo of policy@ppo-0."""
    head, _, entry = name.partition("@")
    return f"{head}.{entry.rpartition('-')[0]}" if entry else head


def deps(stage):
    return [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]


def params(stage):
    return {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}


def covered(path, declared):
    return any(path == dep or path.startswith(f"{dep}/") for dep in declared)


def read_by(name, stage):
    """The code that runs in this stage, whatever its source: its part of its own module, and what is imported with it."""
    entries = SOURCES if name == "collect_preferences" else [entry(stage)]
    others = set().union(*map(closure, entries)) - {*entries}
    works = [work for module in entries for work in work_of(module, namespace(name))]
    return [*works, *(tree(module) for module in others)]


def files(module_names):
    return {modules()[module].relative_to(REPO).as_posix() for module in module_names}


def test_every_stage_is_there(stages):
    assert stages.keys() >= {
        *STAGES,
        "prepare_data",
        "validate_data",
        "validate_preferences",
        "validate_prompt_log",
        "imitation",
        "report",
        "report_prompts",
    }
    assert len(stages) >= 15


def test_code_deps_are_exactly_the_imports():
    """So an edit runs again what it can change, and nothing else. `make deps` writes them."""
    text = DVC_YAML.read_text(encoding="utf-8")
    assert text.count("      - tasks/") > 300
    assert generated(text) == text, "run `make deps`"


@pytest.mark.parametrize(
    ("edited", "runs"),
    [
        ("tasks/algorithms/ppo.py", {"policy@ppo-0"}),
        ("tasks/models/beam.py", {"evaluate"}),
        ("tasks/report/run/sections.py", {"report"}),
        ("tasks/feedback/judge/endpoint.py", set()),
        ("tasks/feedback/annotator/collect.py", {"collect_preferences"}),
        ("tasks/tabular/gail.py", {"imitation"}),
        ("tasks/rewards/process_reward.py", POLICIES | {"reward_model"}),
        ("tasks/rewards/judge/reward.py", POLICIES),
    ],
)
def test_what_an_edit_runs_again(stages, edited, runs):
    """Of the stages that read the file itself; what follows from changed outputs comes on top."""
    assert {name for name, stage in stages.items() if covered(edited, deps(stage))} == runs


def test_the_code_that_deps_leave_out_changes_nothing():
    assert [imported.of for imported in imports("tasks")] == ["os"]
    assert {call.func.attr for call in ast.walk(tree("tasks")) if isinstance(call, ast.Call)} == {"setdefault"}


def test_deps_cover_what_the_code_asks_for(stages):
    """The texts in stage.dep("…"); a part filled in at run time matches anything."""
    asked, unreadable, missing = 0, set(), []
    for name, stage in stages.items():
        for code in read_by(name, stage):
            for call in calls(code, "dep"):
                argument = call.args[0]
                match argument:
                    case ast.Constant(value=str(path)):
                        found = covered(path, deps(stage))
                    case ast.JoinedStr(values=parts):
                        pattern = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in parts)
                        found = any(fnmatch.fnmatch(dep, pattern) for dep in deps(stage))
                    case _:
                        unreadable.add(ast.unparse(argument))
                        continue
                asked += 1
                if not found:
                    missing.append(f"{name}: {ast.unparse(argument)}")
    assert missing == []
    assert unreadable == UNREADABLE
    assert asked > 40


def test_what_only_a_run_can_resolve_is_declared(stages):
    assert covered("data/arithmetic.yaml", deps(stages["prepare_data"]))
    assert covered("data/sources/arithmetic.yaml", deps(stages["prepare_data"]))
    assert covered("data/instructions/arithmetic.yaml", deps(stages["prepare_data"]))
    assert covered("data/expectations/data.yaml", deps(stages["validate_data"]))
    assert covered("data/expectations/preferences.yaml", deps(stages["validate_preferences"]))
    for name in ("judge_model", "collect_preferences", *POLICIES):
        assert covered("data/judge/arithmetic.yaml", deps(stages[name]))
    assert covered("data/expectations/prompt_log.yaml", deps(stages["validate_prompt_log"]))
    for name in ("validate_prompt_log", "prompt_oirl", "prompt_oirl_study"):
        assert covered("data/prompt_log.parquet", deps(stages[name]))


def test_params_cover_what_the_code_reads(stages):
    """The namespace of the stage, `runtime`, those asked for by stage.params(...), and the matrix where it is read."""
    missing = {}
    for name, stage in stages.items():
        read = {namespace(name), "runtime"}
        for code in read_by(name, stage):
            read |= {
                namespaces()[call.args[0].id] for call in calls(code, "params") if getattr(call.args[0], "id", "")[:1].isupper()
            }
            read |= {"policy.algorithms", "policy.seeds"} if calls(code, "policy_matrix") else set()
        missing[name] = sorted(
            key for key in read if not any(key == known or key.startswith(f"{known}.") for known in params(stage))
        )
    assert {name: keys for name, keys in missing.items() if keys} == {}


def test_the_report_runs_again_when_a_param_changes_that_it_shows(stages):
    """Of whichever algorithm: it reads params.yaml itself."""
    shown = [*SHARED, *(f"policy.{name}" for name in ALGORITHMS)]
    assert [key for key in shown if not {key, key.partition(".")[0]} & params(stages["report"])] == []


def test_a_stage_runs_under_its_own_name(stages):
    """run(Config, work) in its module has the namespace that dvc.yaml gives the stage."""
    for name, stage in stages.items():
        assert work_of(entry(stage), namespace(name)), name


def test_a_stage_that_trains_has_a_gpu_for_each_process():
    """dvc.yaml takes the number from `compute.processes`; a stage of one process has one GPU, or none."""
    declared = YAML(typ="safe").load(DVC_YAML.read_text(encoding="utf-8"))["stages"]
    gpus = {name: stage.get("meta", {}).get("gpus") for name, stage in declared.items()}
    assert {name for name, asked in gpus.items() if asked == "${compute.processes}"} == {*TRAINING}
    assert {asked for name, asked in gpus.items() if name not in TRAINING} == {1, None}


def test_every_stage_writes_a_receipt_that_no_stage_reads(stages):
    read = {dep for stage in stages.values() for dep in deps(stage)}
    for name, stage in stages.items():
        assert f"runs/{name}.json" in [out.def_path for out in stage.outs]
    assert not [path for path in read if path.startswith("runs")]


def test_stages_write_exactly_their_outs(stages, project):
    for name in STAGES:
        declared = {out.def_path for out in stages[name].outs} - {f"runs/{name}.json"}
        assert project.receipt(name)["outs"].keys() == declared, name


def test_stages_read_only_their_deps(stages, project):
    """What each run of the small project told MLflow it had read, by content."""
    for name in STAGES:
        run = project.client().get_run(project.receipt(name)["run_id"])
        read = {entry.dataset.name for entry in run.inputs.dataset_inputs}
        assert read
        assert [path for path in read if not covered(path, deps(stages[name]))] == []


def test_gates_stand_before_training(stages):
    """Nothing trains that does not depend on the verdict on its data."""
    for name in ("base_model", "sft"):
        assert "reports/validate_data" in deps(stages[name])
    for name in stages:
        if name == "reward_model" or name.startswith("policy@"):
            assert "reports/validate_preferences" in deps(stages[name])
    assert "reports/validate_prompt_log" in deps(stages["prompt_oirl"])
