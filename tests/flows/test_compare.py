"""Sweeps from outside: what runs, what is saved as DVC experiments, what MLflow shows; nothing of the user's changes."""

import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from flows.compare import read_arguments
from flows.engine.graph import open_repo, read_graph
from flows.engine.sweep.axes import Sweep, in_order, make_sweep, plain
from flows.engine.sweep.differences import difference_table
from flows.engine.sweep.gains import flat, gain_table
from flows.engine.sweep.variant import Start, Variants
from tasks.core.errors import InputError
from tests.flows.servers import ask
from tests.flows.toy import Flow, Project
from tests.processes import PATIENCE, wait_until

RECORDS = (".git", ".dvc", ".scratch", "mlflow.db", "mlartifacts", "__pycache__")  # nothing else may change


def run(project: Project, *arguments: str, **environment: str) -> Flow:
    command = [sys.executable, "-m", "flows.compare", *arguments]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment | environment, capture_output=True, text=True, timeout=PATIENCE
    )
    return Flow(done.returncode, done.stdout, done.stderr)


def tool(project: Project, *command: str) -> str:
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(project: Project) -> dict[str, str]:
    """Every file of the user's working tree, by hash, and what git says of it."""
    files = [file for file in project.folder.rglob("*") if file.is_file()]
    inside = {str(file.relative_to(project.folder)): file for file in files}
    found = {name: file for name, file in inside.items() if not set(Path(name).parts) & set(RECORDS)}
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in found.items()}
    return hashes | {
        "git status": tool(project, "git", "status", "--porcelain"),
        "stash": tool(project, "git", "stash", "list"),
    }


def children(project: Project, parent: Any) -> list[Any]:
    return [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


@dataclass
class Compared:
    """A sweep over one number and a failure, in a project with a change that is not committed and no name for git."""

    project: Project
    flow: Flow
    before: dict[str, str]
    after: dict[str, str]
    prefect: dict[str, str]  # the state of every task, by name

    @property
    def folder(self) -> Path:
        return self.project.folder / ".scratch/compare/scales"

    @property
    def parent(self) -> Any:
        [found] = [run for run in self.project.runs() if run.data.tags.get("flow") == "compare"]
        return found


@pytest.fixture(scope="module")
def compared(first: tuple[Project, Flow], server: str, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("compared")
    project = Project(Path(shutil.copytree(first[0].folder, folder / "project")))
    project.environment |= {"HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "PREFECT_API_URL": server}
    project.set(work__b__scale=7)
    (project.folder / "variants.yaml").write_text(
        "as it is: {}\nlarger: {work.a.scale: 5}\nbroken: {work.a.scale: 5, fragile.fail: true}\n"
    )
    before = content(project)
    flow = run(project, "--list", "variants.yaml", "--name", "scales")
    tasks = ask(server, "task_runs/filter", flows={"name": {"any_": ["compare"]}})
    return Compared(project, flow, before, content(project), {one["name"]: one["state_name"] for one in tasks})


def test_every_variant_ends_and_a_failure_stops_no_other(compared: Compared) -> None:
    assert compared.flow.code == 1
    [sentence] = compared.flow.err.strip().splitlines()
    why = "fragile failed: fragile: told to fail by fragile.fail"
    assert sentence == f"broken failed: {why} (see .scratch/compare/scales/broken.log)"
    assert "not in git, so in no variant: variants.yaml" in compared.flow.out
    rows = re.findall(r"^(as-it-is|larger|broken) +(\w+) +[\d.]+ +(.*)$", compared.flow.out, flags=re.MULTILINE)
    assert {name: (state, figures.split()) for name, state, figures in rows} == {
        "as-it-is": ("saved", ["0.400", "0.200", "0.700"]),
        "larger": ("saved", ["0.400", "0.500", "0.700"]),
        "broken": ("failed", ["-", "-", "-"]),
    }
    assert compared.prefect == {"as-it-is": "Saved", "larger": "Saved", "broken": "Failed"}
    wait_until(lambda: not compared.project.processes())


def test_nothing_of_the_working_tree_changes(compared: Compared) -> None:
    assert len(compared.before) > 20
    assert compared.after == compared.before


def test_what_was_done_already_comes_from_the_cache(compared: Compared) -> None:
    log = (compared.folder / "as-it-is.log").read_text()
    restored = re.findall(r"^(\S+) +│ restored in", log, flags=re.MULTILINE)
    assert set(restored) >= {"prepare", "train", "work@a", "fragile", "after_fragile"}


def test_what_two_variants_share_is_computed_once(compared: Compared) -> None:
    lines = re.findall(r"^(?:larger|broken) +│ work@a +│ (.*)$", compared.flow.out, flags=re.MULTILINE)
    assert lines.count("work@a at work on no device") == 1


def test_each_is_an_experiment_of_the_users_repository(compared: Compared, tmp_path: Path) -> None:
    project = Project(Path(shutil.copytree(compared.project.folder, tmp_path / "project")))
    (project.folder / ".dvc/config.local").write_text(f"[cache]\ndir = {compared.project.folder}/.dvc/cache\n")
    [*_, head] = json.loads(tool(project, "dvc", "exp", "show", "--json", "--force"))
    shown = {one["revs"][0]["name"]: one["revs"][0]["data"] for one in head["experiments"]}
    assert shown.keys() == {"scales-as-it-is", "scales-larger"}
    data = shown["scales-larger"]
    assert data["metrics"]["reports/metrics.json"]["data"]["policy"]["a"]["0"]["accuracy"] == 0.5
    assert data["params"]["params.yaml"]["data"]["work"]["a"]["scale"] == 5
    assert data["params"]["params.yaml"]["data"]["work"]["b"]["scale"] == 7  # the change that was not committed
    identity = {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t"}
    project.environment |= identity
    tool(project, "dvc", "exp", "apply", "scales-larger")
    assert (project.folder / "out/made/a/result.json").read_text() == "5"
    assert "up to date" in tool(project, "dvc", "status")


def test_mlflow_shows_which_run_is_which(compared: Compared) -> None:
    parent = compared.parent
    assert parent.info.status == "FAILED"
    assert parent.data.tags["mlflow.runName"] == "compare: work.a.scale × fragile.fail"
    assert parent.data.params == {"work.a.scale": "2, 5", "fragile.fail": "False, True"}
    found = {run.data.tags["variant"]: run for run in children(compared.project, parent)}
    assert found.keys() == {"as-it-is", "larger", "broken"}
    for name, run in found.items():
        assert run.data.tags["mlflow.runName"] == name
        assert run.info.status == ("FAILED" if name == "broken" else "FINISHED")
    assert found["larger"].data.params["work.a.scale"] == "5"
    artifacts = Path(parent.info.artifact_uri.removeprefix("file://"))
    table = json.loads((artifacts / "variants.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["policy.a.0.accuracy"] for row in rows] == [0.2, 0.5, None]
    history = compared.project.mlflow().get_metric_history(parent.info.run_id, "policy.a.0.accuracy")
    assert {point.step: point.value for point in history} == {0: 0.2, 1: 0.5}
    ids = ",".join(f"%22{found[name].info.run_id}%22" for name in ("as-it-is", "larger", "broken"))
    assert f"/#/compare-runs?runs=%5B{ids}%5D&experiments=%5B%221%22%5D" in compared.flow.out
    assert (artifacts / "index.html").read_bytes() == (compared.folder / "index.html").read_bytes()


def test_the_seconds_of_a_stage_are_those_of_the_run_that_made_it(compared: Compared) -> None:
    """train came from the cache in both; of all stages of the toy project it alone reports to MLflow."""
    entries = {one["name"]: one for one in json.loads((compared.folder / "sweep.json").read_text())["variants"]}
    made = json.loads((compared.folder / "larger/runs/train.json").read_text())["run_id"]
    info = compared.project.mlflow().get_run(made).info
    assert entries["larger"]["seconds"] == {"train": (info.end_time - info.start_time) / 1000}
    assert entries["broken"]["seconds"] == {}
    assert json.loads((compared.folder / "gains.json").read_text()) == []  # no completions were recorded


def test_the_page_has_the_figures(compared: Compared) -> None:
    page = (compared.folder / "index.html").read_text()
    assert "2 of 3 variants ended well" in page
    assert '<data value="0.5" title="0.5">50.0</data>' in page
    assert "failed: fragile failed" in page


def test_killed_and_run_again(finished: Project) -> None:
    """Over seeds, with a private API: nothing is left, and what was done is not done again."""
    arguments = ("--seeds", "3", "--set", "train.num_steps=100", "--set", "train.seconds_per_step=0.05")
    checkout = finished.folder / ".scratch/compare/num_steps,seconds_per_step,seed/num_steps=100,seconds_per_step=0.05,seed=3"
    command = [sys.executable, "-m", "flows.compare", *arguments]
    process = subprocess.Popen(command, cwd=finished.folder, env=finished.environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: list(checkout.glob(".scratch/train/*/run_id")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not finished.processes() and not Project(checkout).processes())
    killed = {run.data.tags.get("flow", "stage"): run.info.status for run in finished.runs()[:3]}
    assert killed == {"compare": "RUNNING", "align": "KILLED", "stage": "KILLED"}  # the first is found by the next sweep

    flow = run(finished, *arguments)
    assert flow.code == 0, flow.err
    assert "prepare       │ restored" not in flow.out
    assert "train         │ ran" in flow.out
    assert {run.info.status for run in finished.runs()} == {"FINISHED", "KILLED"}
    assert f"dvc exp apply {checkout.name}" in flow.out
    assert f"refs/exps/{tool(finished, 'git', 'rev-parse', 'HEAD')[:2]}/" in tool(finished, "git", "for-each-ref")


@pytest.fixture
def here(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(template, tmp_path / "project"))
    monkeypatch.chdir(folder)
    return folder


def sweep(*settings: str, seeds: str | None = None, file: Path | None = None, name: str | None = None) -> Sweep:
    return make_sweep(**read_arguments(list(settings), seeds, file), name=name)


def test_a_grid_is_every_combination(here: Path) -> None:
    made = sweep("work.a.scale=1,2", "train.learning_rate=1e-3, 0.1", seeds="0,1")
    assert made.name == "scale,learning_rate,seed"
    assert len(made.variants) == 8
    last = made.variants[-1]
    assert last.params == {"work.a.scale": 2, "train.learning_rate": 0.1, "runtime.seed": 1}
    assert last.name == made.experiment(last) == "scale=2,learning_rate=0.1,seed=1"
    assert [sweep("train.learning_rate=1e-3", name="my sweep").experiment(one) for one in made.variants[:1]] == [
        "my-sweep-scale=1,learning_rate=0.001,seed=0"
    ]


def test_values_are_yaml_and_names_are_short_but_distinct(here: Path) -> None:
    made = sweep("work.names=[a],[b, a]", "work.a.scale=null,true", "work.b.scale='x/y'")
    assert [variant.params["work.names"] for variant in made.variants[::2]] == [["a"], ["b", "a"]]
    assert [variant.name for variant in made.variants] == [
        "names=a,a.scale=null,b.scale=x-y", "names=a,a.scale=true,b.scale=x-y",
        "names=b+a,a.scale=null,b.scale=x-y", "names=b+a,a.scale=true,b.scale=x-y",
    ]  # fmt: skip
    assert plain("../a b.lock") == "a-b"
    assert len(plain("x" * 300)) < 140 != len(plain("y" * 3))


def test_all_is_every_namespace_beside_the_list(here: Path) -> None:
    """As policy.algorithms lists policy.ppo and so on, work.names lists work.a and work.b."""
    file = here / "params.yaml"
    file.write_text(file.read_text().replace("names: [a, b]", "names: [b]"))
    [variant] = sweep("work.names=all").variants
    assert (variant.name, variant.params, variant.shown) == ("names=all", {"work.names": ["a", "b"]}, {"work.names": "all"})
    both = sweep("work.names=all,[a]").variants
    assert [one.params["work.names"] for one in both] == [["a", "b"], ["a"]]
    [other] = sweep("prepare.rows=all").variants  # no list of namespaces: a word like any other
    assert other.params == {"prepare.rows": "all"}


def test_a_mapping_is_a_value_too(here: Path) -> None:
    [variant] = sweep("work.a={scale: 5, seconds: 0.0}").variants
    assert variant.params == {"work.a": {"scale": 5, "seconds": 0.0}}
    assert variant.name == "a=scale=5+seconds=0.0"
    Variants(Path(".scratch/compare/x"), Start.now(), lambda name, line: None).prepare(variant)
    written = YAML(typ="safe").load(here / ".scratch/compare/x" / variant.name / "params.yaml")
    assert written["work"]["a"] == {"scale": 5, "seconds": 0.0}


def test_gains_are_printed_with_intervals_and_alarms() -> None:
    greedy = {"accuracy": 0.8, "gain": 0.05, "low": -0.02, "high": 0.12, "p": 0.0004, "p_holm": 0.0008, "words": "better"}
    greedy |= {"models_low": 0.01, "models_high": 0.09, "prompts": 600}
    price = {"win_rate": 0.55, "kl": 0.75, "tokens": 123456.0, "seconds": 31.4}
    unknown = dict.fromkeys(price)
    rows = [
        {"group": "", "model": "sft", "seeds": 3, "alarms": {}, "sampled": None, **unknown, "greedy": greedy | {"gain": 0.0}},
        {"group": "", "model": "ppo", "seeds": 3, "alarms": {"kl_budget": 2}, "sampled": None, **price, "greedy": greedy},
    ]
    printed = io.StringIO()
    Console(file=printed, width=200).print(gain_table(rows))
    [title, heads, sft, ppo] = [line.split() for line in printed.getvalue().splitlines()]
    assert title == ["gain", "on", "SFT;", "p", "after", "Holm's", "correction"]
    assert " ".join(heads[:12]) == "policy seeds × prompts sampled gain over seeds p of these models"
    assert sft == ["sft", "-", "80.0"]
    assert ppo == [
        "ppo", "3", "×", "600", "-", "-", "80.0", "+5.0", "[-2.0,", "+12.0]", "<.001", "[+1.0,", "+9.0]",
        "0.550", "0.75", "123,456", "31", "kl_budget", "2/3",
    ]  # fmt: skip
    assert [(row["greedy_gain"], row["sampled_gain"], row["alarms"]) for row in flat(rows)] == [
        (0.0, None, ""), (0.05, None, "kl_budget 2/3"),
    ]  # fmt: skip


def test_differences_are_printed_with_both_intervals() -> None:
    greedy = {"difference": -0.012, "low": -0.1, "high": 0.08, "p_holm": 0.25, "models_low": -0.03, "models_high": 0.004}
    greedy["prompts"] = 600
    row = {"group": "rlaif", "model": "grpo", "reference": "rlhf", "seeds": 3, "greedy": greedy, "sampled": None}
    printed = io.StringIO()
    Console(file=printed, width=200).print(difference_table([row]))
    [title, _, line] = printed.getvalue().splitlines()
    assert title.strip() == "against rlhf, the same model in both; p after Holm's correction"
    assert line.split() == ["grpo,", "rlaif", "3", "×", "600", "-", "-1.2", "[-10.0,", "+8.0]", "0.250", "[-3.0,", "+0.4]"]


def test_a_list_names_its_variants_and_may_be_repeated_over_seeds(here: Path) -> None:
    (here / "v.yaml").write_text("small: {work.a.scale: 1}\nas it is:\n")
    made = sweep(seeds="0,1", file=here / "v.yaml", name="sizes")
    assert [made.experiment(variant) for variant in made.variants] == [
        "sizes-small,seed=0", "sizes-small,seed=1", "sizes-as-it-is,seed=0", "sizes-as-it-is,seed=1",
    ]  # fmt: skip
    assert [(variant.listed, made.listed) for variant in made.variants[1:3]] == [
        ("small", ("work.a.scale",)), ("as it is", ("work.a.scale",)),
    ]  # fmt: skip
    assert made.variants[-1].params == {"runtime.seed": 1}
    assert made.variants[-1].shown == {"work.a.scale": 2, "runtime.seed": 1}


def test_variants_that_start_together_differ_early_in_the_pipeline(here: Path) -> None:
    """prepare comes before work: the first two differ in it, the third needs no more than a new work@a."""
    with open_repo() as repo:
        order = in_order(sweep("prepare.rows=1,2", "work.a.scale=1,2"), read_graph(repo))
    assert [variant.name for variant in order] == ["rows=1,scale=1", "rows=2,scale=1", "rows=1,scale=2", "rows=2,scale=2"]


@pytest.mark.parametrize(
    ("settings", "seeds", "text", "sentence"),
    [
        ([], None, None, "nothing varies; say --set key=value,value or --seeds 0,1,2 or --list variants.yaml"),
        (["train.num_step=1"], None, None, "params.yaml has no key `train.num_step`; did you mean `train.num_steps`?"),
        (["train.learning_rate"], None, None, "--set train.learning_rate: say key=value,value"),
        (["train.learning_rate=[1,2"], None, None, "--set train.learning_rate=[1,2: the values are not valid YAML"),
        (["train.learning_rate="], None, None, "`train.learning_rate` has no values to take"),
        (["train.num_steps=1,1"], None, None, "`train.num_steps` takes one value twice: 1, 1"),
        (["train.num_steps=1", "train.num_steps=2"], None, None, "--set train.num_steps is given twice"),
        (["runtime.seed=1"], "0,1", None, "`runtime.seed` is varied twice"),
        ([], "0,x", None, "--seeds 0,x: seeds are whole numbers"),
        (["work.a.scale='x/y','x y'"], None, None, "two variants would both be called scale=x-y"),
        ([], None, "a: 1", "v.yaml: `a` is 1; it should be params, as in `small: {base_model.hidden_size: 32}`"),
        ([], None, "[a]", "v.yaml should map names to params"),
        ([], None, "a: {work.c: 1}", "params.yaml has no key `work.c`"),
        ([], None, "a: {b", "v.yaml:2: not valid YAML"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(here: Path, settings: list[str], seeds: str | None, text: str | None, sentence: str) -> None:
    if text:
        (here / "v.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(sentence)):
        sweep(*settings, seeds=seeds, file=Path("v.yaml") if text else None)


def test_params_keep_their_comments(here: Path) -> None:
    file = here / "params.yaml"
    file.write_text(file.read_text().replace("seconds_per_step: 0.0}", "seconds_per_step: 0.0} # of sleep\n"))
    variants = Variants(Path(".scratch/compare/x"), Start.now(), lambda name, line: None)
    [variant] = sweep("work.a.scale=1").variants
    variants.prepare(variant)
    written = (variants.checkout(variant) / "params.yaml").read_text()
    assert "# of sleep" in written
    expected = YAML(typ="safe").load(file)
    expected["work"]["a"]["scale"] = 1
    assert YAML(typ="safe").load(written) == expected
    (variants.checkout(variant) / "kept").touch()
    variants.prepare(variant)
    assert (variants.checkout(variant) / "kept").exists()  # the same variant goes on where it is
    file.write_text(file.read_text() + "# changed\n")
    Variants(Path(".scratch/compare/x"), Start.now(), lambda name, line: None).prepare(variant)
    assert not (variants.checkout(variant) / "kept").exists()
