"""Whose words the servers of `make server` heed: not those of a web page that is open in a browser on the same machine."""

import stat
from pathlib import Path

import httpx
import pytest

from flows import stage as stage_module
from flows.engine import key
from flows.engine.key import VARIABLE, find_key, key_file, make_key, sign
from tests.flows.servers import Serve
from tests.processes import PATIENCE, free_port

FOREIGN = {"Origin": "http://evil.example:8999"}


def test_only_who_has_the_key_is_answered(serve: Serve) -> None:
    """With real servers. A page elsewhere can send what it likes; it does not know what the file holds."""
    prefect, mlflow = free_port(), free_port()
    project, server = serve(PREFECT_SERVER_API_PORT=str(prefect), MLFLOW_PORT=str(mlflow))
    assert server.stdout
    while "Ctrl-C" not in (line := server.stdout.readline()):
        assert line, server.communicate()
    file = project.folder / key_file(prefect)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    user, _, password = file.read_text().partition(":")
    with httpx.Client(base_url=f"http://127.0.0.1:{prefect}", timeout=PATIENCE) as browser:
        for headers in ({}, FOREIGN, {"Host": "evil.example"}):
            assert browser.post("/api/deployments/filter", json={}, headers=headers).status_code == 401
            assert browser.post("/api/flow_runs/", json={}, headers=headers).status_code == 401
        asked = {**FOREIGN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert "access-control-allow-origin" not in browser.options("/api/deployments/filter", headers=asked).headers
        known = browser.post("/api/deployments/filter", json={}, auth=(user, password), headers=FOREIGN)
        assert known.status_code == 200
        assert "access-control-allow-origin" not in known.headers  # a page could not read it
        assert browser.get("/", follow_redirects=True).status_code == 200
        assert browser.get("/ui-settings").json()["auth"] == "BASIC"  # the UI asks for it
    search = f"http://127.0.0.1:{mlflow}/api/2.0/mlflow/experiments/search"
    for headers in (FOREIGN, {"Host": "evil.example"}):
        assert httpx.post(search, json={"max_results": 1}, headers=headers, timeout=PATIENCE).status_code == 403
    assert httpx.post(search, json={"max_results": 1}, timeout=PATIENCE).status_code == 200
    server.terminate()
    server.communicate(timeout=PATIENCE)


def test_the_key_is_found_for_the_server_of_this_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    made = make_key(4200)
    assert make_key(4200) == made
    for other in ("http://elsewhere:4200/api", "http://127.0.0.1:4201/api", ""):
        monkeypatch.setenv("PREFECT_API_URL", other)
        find_key()
        assert VARIABLE not in key.os.environ
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4200/api")
    find_key()
    assert key.os.environ[VARIABLE] == made
    del key.os.environ[VARIABLE]


def test_a_patch_that_no_flow_has_signed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # the flow sets it for its process, which is ours here
    monkeypatch.setattr(stage_module, "_follow_flow", lambda flow_run_id: None)
    monkeypatch.setattr(stage_module, "fetch_commit", lambda commit: pytest.fail("it went on"))
    monkeypatch.setenv(VARIABLE, "admin:other")
    forged = sign("sft", "HEAD", "a patch", {})
    monkeypatch.setenv(VARIABLE, "admin:secret")
    ended = stage_module.stage.fn("sft", "HEAD", "a patch", {}, forged, "", "")
    assert ended.is_failed()
    assert "not signed with the key" in (ended.message or "")
    assert sign("sft", "HEAD", "a patch", {}) != sign("sft", "HEAD", "another", {})
