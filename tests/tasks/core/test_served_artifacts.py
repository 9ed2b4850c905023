"""The server of a checkout, and a second folder that stands for another machine: it has the server's address and no files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from tasks.core.files import digest, write_json
from tasks.core.recorded_runs import read_text
from tasks.core.registry import Registry
from tasks.core.tracking import Tracker
from tests.processes import PATIENCE, Nursery, free_port, wait_until

FOREIGN = {"Origin": "http://evil.example"}


@dataclass
class Site:
    """checkout: where the server keeps what it is sent; earlier: a run that was recorded there before it began."""

    checkout: Path
    uri: str
    earlier: str


@pytest.fixture(scope="module")
def site(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    checkout, port = tmp_path_factory.mktemp("it's a checkout"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = Tracker("earlier", {}, {})
        run.text("kept before", "note.txt")
        run.finish("FINISHED")
    elsewhere = "http://127.0.0.1:9"  # what the server's own environment says of servers is not for it
    server = nursery.start(checkout, f"tasks.core.tracking_server {port}", MLFLOW_TRACKING_URI=elsewhere)
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.alive(), server.wait().stderr
        try:
            return httpx.get(f"{uri}/health", timeout=PATIENCE).is_success
        except httpx.ConnectError:
            return False

    wait_until(answers)
    yield Site(checkout, uri, run.run_id)
    server.send(15)
    server.wait()


@pytest.fixture
def machine(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.uri)
    return tmp_path


def test_what_another_machine_records_lies_with_the_server_and_can_be_fetched(site: Site, machine: Path) -> None:
    write_json(machine / "models/policy/ppo-0/config.json", {"layers": 2})
    write_json(machine / "served/MLmodel", {"flavors": {}})
    run = Tracker("sft", {"stage": "sft"}, {"steps": 3})
    run.text("sent", "note.txt")
    run.table([{"prompt": "file:///mlartifacts", "reward": 0.5}], "samples")
    run.model(Path("models/policy/ppo-0"), digest(Path("models/policy/ppo-0")))
    run.served("prompt_oirl", Path("served"), {}, ["newest"])
    run.finish("FINISHED")
    version = Registry("policy").register(Path("served"), run.run_id, {"md5": "0" * 32, "model": "ppo-0"})

    assert not (machine / "mlartifacts").exists()
    assert not list(machine.glob(".scratch/spool/*"))
    kept = site.checkout / "mlartifacts" / run.run_id / "artifacts"
    assert (kept / "note.txt").read_text() == "sent"
    assert (kept / "prompt_oirl/MLmodel").exists()
    assert len(list(site.checkout.glob("mlartifacts/models/*/artifacts/artifacts/ppo-0/config.json"))) == 1

    client = MlflowClient(tracking_uri=site.uri)
    sources = [client.get_run(run.run_id).info.artifact_uri, client.get_model_version("prompt_oirl", "1").source]
    sources += [client.get_model_version_download_uri(name, "1") for name in ("policy", "prompt_oirl")]
    assert version.number == "1"
    assert [source.split(":")[0] for source in sources] == ["mlflow-artifacts"] * 4
    assert (
        Path(client.download_artifacts(run.run_id, "samples.json", str(machine))).read_text().count("file:///mlartifacts") == 1
    )


def test_what_was_recorded_before_can_be_fetched_too(site: Site, machine: Path) -> None:
    assert read_text(site.earlier, "note.txt") == "kept before"


def test_without_the_server_all_is_where_it_was(site: Site, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through = Tracker("sft", {}, {})
    through.text("sent", "note.txt")
    write_json(machine / "served/MLmodel", {"flavors": {}})
    through.served("served", Path("served"), {}, [])
    through.finish("FINISHED")
    monkeypatch.chdir(site.checkout)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert read_text(through.run_id, "note.txt") == "sent"
    client, root = MlflowClient(tracking_uri=f"sqlite:///{site.checkout}/mlflow.db"), (site.checkout / "mlartifacts").as_uri()
    assert client.get_run(through.run_id).info.artifact_uri == f"{root}/{through.run_id}/artifacts"
    assert client.get_model_version("served", "1").source.startswith("file:")


@pytest.mark.parametrize("headers", [FOREIGN, {"Host": "evil.example"}], ids=["origin", "host"])
def test_a_page_of_elsewhere_can_send_no_file(site: Site, headers: dict[str, str]) -> None:
    address = f"{site.uri}/api/2.0/mlflow-artifacts/artifacts/{{}}"
    refused = httpx.put(address.format("page/evil.txt"), content=b"evil", headers=headers, timeout=PATIENCE)
    assert refused.status_code == 403
    assert not (site.checkout / "mlartifacts/page").exists()
    assert httpx.put(address.format("..%2Fevil.txt"), content=b"evil", timeout=PATIENCE).status_code == 400
    assert not (site.checkout / "evil.txt").exists()
