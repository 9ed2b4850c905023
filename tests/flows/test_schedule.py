"""Schedules: the project's own prefect.yaml with a real Prefect server and a real worker, and both of them killed."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from ruamel.yaml import YAML

from flows.deploy import make_pools, watch
from flows.engine.key import key_file
from tests.flows.servers import Serve, answers, ask, checkout, start
from tests.flows.toy import ROOT, Flow, Project
from tests.processes import PATIENCE, free_port, wait_until

SECONDS_BETWEEN_RUNS = 4


class Site:
    """A checkout with a worker in it, and its deployments as the Prefect server knows them."""

    def __init__(self, project: Project, server: str):
        self.project = project
        self.server = server
        self.worker = self.start_worker()

    def start_worker(self) -> subprocess.Popen[str]:
        """Its output, and that of its flows, goes to a file beside the checkout."""
        with (self.project.folder.parent / "worker.log").open("a") as log:
            says = {"PREFECT_API_URL": self.server, "PREFECT_WORKER_QUERY_SECONDS": "1"}
            return start(self.project, "flows.worker", "cpu", output=log, **says)

    def ask(self, path: str, **body: Any) -> Any:
        return ask(self.server, path, **body)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {f"{one['entrypoint'].split(':')[1]}/{one['name']}": one for one in self.ask("deployments/filter")}

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs in one of these states that a worker here would take, the latest first."""
        mine = {"state": {"type": {"any_": list(states)}}, "deployment_id": {"any_": [self.nightly]}}
        return self.ask("flow_runs/filter", sort="START_TIME_DESC", flow_runs=mine)

    @property
    def nightly(self) -> str:
        return self.deployments()["align/nightly"]["id"]

    def begin(self, **params: Any) -> str:
        """One run of align/nightly with these params, now, and no more by schedule. Returns its id."""
        self.ask(f"deployments/{self.nightly}/pause_deployment")
        wait_until(lambda: not self.runs("SCHEDULED", "PENDING", "RUNNING") and not self.others())
        self.project.set(**params)
        return self.ask(f"deployments/{self.nightly}/create_flow_run", state={"type": "SCHEDULED"})["id"]

    def recorded(self) -> list[str]:
        """How MLflow says that the latest flow and the latest `train` ended."""
        train = next(run for run in self.project.runs() if run.data.tags.get("flow") != "align")
        return [self.project.pipelines()[0].info.status, train.info.status]

    def state(self, flow_run: str) -> str:
        [run] = self.ask("flow_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
        return run["state_type"]

    def others(self) -> list[int]:
        """Whatever works in the checkout besides the worker."""
        return [process.pid for process in self.project.processes() if process.pid != self.worker.pid]


@pytest.fixture(scope="module")
def site(first: tuple[Project, Flow], server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All of prefect.yaml is deployed, only that the night comes every few seconds and the week not at all."""
    project = checkout(first, tmp_path_factory.mktemp("site"))
    settings = YAML().load(ROOT / "prefect.yaml")
    for deployment in settings["deployments"]:
        for schedule in deployment.get("schedules", []):
            schedule["active"] = False
        if deployment["name"] == "nightly":
            deployment["schedules"] = [{"interval": SECONDS_BETWEEN_RUNS}]
    YAML().dump(settings, project.folder / "prefect.yaml")
    site = Site(project, server)
    try:
        deploy = start(project, "flows.deploy", PREFECT_API_URL=server, CUDA_VISIBLE_DEVICES="")
        out, err = deploy.communicate(timeout=PATIENCE)
        assert deploy.returncode == 0, out + err
        yield site
    finally:
        site.worker.terminate()
        site.worker.wait(timeout=PATIENCE)
        wait_until(lambda: not project.processes())


def test_everything_is_registered(site: Site) -> None:
    """Deploying loads every flow by its entry point."""
    assert {name: one["work_pool_name"] for name, one in site.deployments().items()} == {
        "align/nightly": "cpu",
        "compare/weekly": "cpu",
        "rerun/on-demand": "cpu",
        "drift/on-demand": "cpu",
        "stage/cpu": "cpu",  # and no stage/gpu: neither a GPU nor a worker with one has been seen
    }
    [week] = site.deployments()["compare/weekly"]["schedules"]
    assert week["schedule"]["cron"] == "0 4 * * 0"
    with SyncPrefectClient(site.server) as client:  # once more
        make_pools(client, {"cpu", "gpu"})
        watch(client, {"align"})
    assert len(site.ask("work_pools/filter")) == 2
    parameters = site.deployments()["align/nightly"]["parameter_openapi_schema"]["properties"]
    assert parameters["until"]["description"].startswith("Only this stage (or matrix) and what it needs.")
    [automation] = site.ask("automations/filter")
    assert automation["enabled"]


def test_a_scheduled_run_happens_and_finishes(site: Site) -> None:
    """What fails first where the pins of fastapi and sqlalchemy in pyproject.toml no longer hold.

    With newer ones `prefect deploy` or the flow run is refused, or the scheduler fails in its background and creates no
    run, while the server looks healthy.
    """
    [run] = wait_until(lambda: [run for run in site.runs("COMPLETED") if run["auto_scheduled"]][:1])
    assert run["state"]["message"] == "7 stages are up to date"
    assert [pipeline.info.status for pipeline in site.project.pipelines()][-2:] == ["FINISHED", "FINISHED"]


def test_a_run_is_cancelled(site: Site) -> None:
    flow_run = site.begin(train__num_steps=100000, train__seconds_per_step=0.05)
    wait_until(lambda: site.recorded() == ["RUNNING", "RUNNING"])
    site.ask(f"flow_runs/{flow_run}/set_state", state={"type": "CANCELLING"})  # as in the UI, or `prefect flow-run cancel`
    wait_until(lambda: site.state(flow_run) == "CANCELLED")
    wait_until(lambda: not site.others())
    assert site.recorded() == ["KILLED", "KILLED"]
    assert not (site.project.folder / "models/train").exists()


def test_a_killed_worker_takes_its_flow_with_it_and_the_next_continues(site: Site) -> None:
    flow_run = site.begin(train__num_steps=100000, train__seconds_per_step=0.05)
    wait_until(lambda: site.recorded() == ["RUNNING", "RUNNING"])
    site.worker.kill()
    site.worker.wait()
    wait_until(lambda: not site.others())
    assert site.state(flow_run) == "CRASHED"
    assert site.recorded() == ["KILLED", "KILLED"]

    site.worker = site.start_worker()
    flow_run = site.begin(train__num_steps=3, train__seconds_per_step=0.0)
    wait_until(lambda: site.state(flow_run) == "COMPLETED")
    assert site.recorded() == ["FINISHED", "FINISHED"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_make_server_leaves_nothing_behind(
    serve: Serve, first: tuple[Project, Flow], tmp_path: Path, number: signal.Signals
) -> None:
    prefect, mlflow = free_port(), free_port()
    project, server = serve(PREFECT_SERVER_API_PORT=str(prefect), MLFLOW_PORT=str(mlflow))
    said = ""
    while "Ctrl-C" not in said:
        assert server.stdout
        line = server.stdout.readline()
        assert line, server.communicate()
        said += line
    assert f"http://127.0.0.1:{prefect}\n" in said
    assert answers(f"http://127.0.0.1:{prefect}/api/health")
    assert answers(f"http://127.0.0.1:{mlflow}/health")
    if number == signal.SIGTERM:  # a flow of another checkout, which has neither the database nor the artifacts
        elsewhere = Project(Path(shutil.copytree(first[0].folder, tmp_path / "elsewhere")))
        (elsewhere.folder / "mlflow.db").unlink()
        shutil.rmtree(elsewhere.folder / "mlartifacts")
        elsewhere.set(train__num_steps=3)
        urls = {"PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}"}
        flow = elsewhere.align(**urls, PREFECT_API_AUTH_STRING=(project.folder / key_file(prefect)).read_text())
        assert flow.code == 0, flow.err
        train, run = (next(run for run in project.runs() if run.data.tags.get(tag)) for tag in ("stage", "flow"))
        assert (train.info.status, run.info.status) == ("FINISHED", "FINISHED")
        assert "stages.json" in [file.path for file in project.mlflow().list_artifacts(run.info.run_id)]
        kept = project.folder / "mlartifacts" / train.info.run_id / "artifacts/models/train/weights.json"
        assert kept.read_bytes() == (elsewhere.folder / "models/train/weights.json").read_bytes()
        assert not (elsewhere.folder / "mlartifacts").exists()
    server.send_signal(number)
    server.communicate(timeout=PATIENCE)
    assert server.returncode == (0 if number == signal.SIGTERM else -number)
    wait_until(lambda: not project.processes())


def test_make_server_names_the_port_that_is_taken(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        _, server = serve(PREFECT_SERVER_API_PORT=str(free_port()), MLFLOW_PORT=str(port))
        _, err = server.communicate(timeout=PATIENCE)
    assert server.returncode == 1
    assert err == (
        f"port {port} is not free (Address already in use), perhaps `make ui`: end what listens there, or set MLFLOW_PORT\n"
    )
