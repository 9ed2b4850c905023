"""The stage as a process: the same bytes from anywhere, recorded in MLflow, refused with a sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tasks.core.files import digest, files_of, read_json
from tests.processes import Done, Nursery
from tests.tasks.report.conftest import Run

MakeRun = Callable[..., Run]


def report(run: Run, nursery: Nursery, database: Path) -> Done:
    shutil.copy(database, run.folder / "mlflow.db")
    return nursery.run(run.folder, "tasks.report.run.page", MLFLOW_TRACKING_URI=f"sqlite:///{run.folder / 'mlflow.db'}")


def test_same_files_give_the_same_bytes_and_all_is_recorded(make_run: MakeRun, nursery: Nursery, database: Path) -> None:
    pages = []
    for name in ("here", "another place"):
        run = make_run(name=name).write()
        done = report(run, nursery, database)
        assert done.code == 0, done.stderr
        page = run.folder / "reports/index.html"
        receipt = read_json(run.folder / "runs/report.json")
        assert receipt["outs"] == {"reports/index.html": digest(page)}
        assert receipt["run_id"] not in page.read_text()
        assert str(run.folder) not in page.read_text()
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]
    kept = {file.name for file in files_of(run.folder / "mlartifacts")}
    assert {"index.html", "rollouts_kl_mean.png", "optimization_both.png", "prompts_success.png"} <= kept


def test_missing_figures_are_refused(make_run: MakeRun, nursery: Nursery, database: Path) -> None:
    run = make_run()
    del run.metrics["policy"]["grpo"]
    done = report(run.write(), nursery, database)
    assert done.code == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith("reports/metrics.json has no figures of policy grpo-0; `dvc repro evaluate` writes them")
    assert not (run.folder / "reports/index.html").exists()
