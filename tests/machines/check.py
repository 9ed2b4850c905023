"""More machines, really: PostgreSQL, an S3 store, MLflow, Prefect, and two workers in two clones. One of them is killed.

    make machines-check

Needs PostgreSQL as Debian packages it. No container is started: see tests/machines/servers.py.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dvc.utils.serialize import load_yaml

from tests.flows.conftest import commit_files
from tests.flows.toy import Project
from tests.machines.servers import Servers
from tests.processes import REPO, wait_until

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]


def main() -> None:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        sys.exit("machines-check needs PostgreSQL: apt-get install postgresql")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL has a user of its own
        servers = Servers(folder, environment())
        try:
            servers.begin()
            check(folder, servers)
        finally:
            servers.end()


def environment() -> dict[str, str]:
    """Of everything that is started: this checkout, and what `make machines-check` has installed beside it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW", "CUDA", "REALIGN"))}
    paths = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    return kept | {"PYTHONPATH": paths, "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}


def check(folder: Path, servers: Servers) -> None:
    origin = folder / "origin"
    origin.mkdir()
    commit_files(origin)
    (origin / "flows").symlink_to(REPO / "flows")
    (origin / "prefect.yaml").write_text((REPO / "prefect.yaml").read_text())
    for command in ("add --default s3 s3://dvc", f"modify s3 endpointurl {servers.store}"):
        subprocess.run([sys.executable, "-m", "dvc", "remote", *command.split()], cwd=origin, check=True, env=environment())
    subprocess.run([*GIT, "add", "-A"], cwd=origin, check=True)
    subprocess.run([*GIT, "commit", "-qm", "where the machines meet"], cwd=origin, check=True)
    user, *machines = (clone(origin, folder / name) for name in ("user", "one", "two"))
    begin = time.monotonic()

    run = [sys.executable, "-m", "flows.deploy"]
    deploy = subprocess.run(run, cwd=user.folder, env=user.environment | servers.worker, capture_output=True, text=True)
    assert deploy.returncode == 0, deploy.stdout + deploy.stderr
    worker = [sys.executable, "-m", "flows.worker", "cpu"]
    says = servers.worker | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    workers = [servers.start(f"worker-{one.folder.name}", worker, says, cwd=one.folder) for one in machines]

    user.set(train__num_steps=100, train__seconds_per_step=0.1)
    flow = user.start("--workers", "--until", "evaluate", **servers.worker)

    def at_train() -> list[int]:
        assert flow.poll() is None, flow.communicate()
        return [n for n, one in enumerate(machines) if list(one.folder.glob(".scratch/stages/train.unfinished/*"))]

    [victim] = wait_until(at_train)
    workers[victim].kill()
    out, err = flow.communicate()
    assert flow.returncode == 0, out + err
    assert "its worker is gone" in out, out
    print(f"a worker was killed in a stage, the other finished the flow: {time.monotonic() - begin:.0f} s with all starts")
    look_at_records(user, servers)
    outs = [out for stage in load_yaml(user.folder / "dvc.lock")["stages"].values() for out in stage["outs"]]
    kept = {one.key for one in servers.bucket("dvc").objects.all()}
    missing = [out["path"] for out in outs if f"files/md5/{out['md5'][:2]}/{out['md5'][2:]}" not in kept]
    assert not missing, missing
    print(f"the DVC remote holds every output: {len(kept)} objects")
    again = user.align("--workers", "--until", "evaluate", **servers.worker)
    assert set(again.happened().values()) == {"cached"}, again.out + again.err
    print("a second flow finds all of it cached")


def clone(origin: Path, folder: Path) -> Project:
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], check=True)
    project = Project(folder)
    project.environment = environment()
    return project


def look_at_records(user: Project, servers: Servers) -> None:
    """In PostgreSQL by MLflow's server, artifacts in the bucket; nothing of it lies in a clone."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=servers.worker["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("realign").experiment_id])
    [pipeline] = [run for run in runs if run.data.tags.get("flow") == "align"]
    trained = [run for run in runs if run.data.tags.get("stage") == "train"]
    assert pipeline.info.status == "FINISHED"
    assert sorted(run.info.status for run in trained) == ["FINISHED", "KILLED"]
    [done] = [run.info.run_id for run in trained if run.info.status == "FINISHED"]
    steps = [point.step for point in client.get_metric_history(done, "loss/train")]
    assert steps == list(range(100)), steps
    kept = [one.key for one in servers.bucket("mlflow").objects.all()]
    assert any(done in key and key.endswith("models/train/weights.json") for key in kept), kept
    with tempfile.TemporaryDirectory() as here:
        fetched = Path(client.download_artifacts(done, "models/train/weights.json", here))
        assert fetched.read_bytes() == (user.folder / "models/train/weights.json").read_bytes()
    assert not list(user.folder.parent.glob("*/ml*"))
    print(f"MLflow's records are in PostgreSQL, its artifacts in the bucket: {len(runs)} runs, {len(kept)} objects")


if __name__ == "__main__":
    main()
