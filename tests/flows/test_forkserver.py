"""Children come with the libraries loaded, run what lies on disk, and outlive the process they came from."""

import os
import sys
from pathlib import Path

import pytest

from flows.engine.forkserver import Child, Forkserver
from tests.flows.toy import Project
from tests.processes import wait_until


@pytest.fixture
def server(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Forkserver:
    """One that has loaded a stage, and with it a library."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", finished.environment["PYTHONPATH"])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    script = Path("toy/work.py")
    script.write_text(f"import colorsys\n{script.read_text()}")
    server = Forkserver([], ["toy.work"])
    server.check()
    return server


def said(child: Child) -> str:
    return child.output.read().decode()


def test_a_stage_runs_what_lies_on_disk_with_libraries_that_are_loaded(server: Forkserver, finished: Project) -> None:
    script = Path("toy/work.py")
    script.write_text(f"import sys\nprint('edited; loaded:', 'colorsys' in sys.modules)\n{script.read_text()}")
    child = server.fork("work@a", dict(os.environ), [])
    assert said(child) == "edited; loaded: True\nwork@a at work on no device\n"
    assert child.wait() == 0


def test_a_killed_server_takes_nothing_with_it_and_is_replaced(server: Forkserver, finished: Project) -> None:
    finished.set(work__a__scale=4, work__a__seconds=1.0, work__b__scale=4, work__b__seconds=0.0)
    child = server.fork("work@a", dict(os.environ), [])
    mine = [one for one in finished.processes() if one.info["ppid"] == os.getpid()]
    [process] = [one for one in mine if one.pid != child.pid]
    process.kill()
    process.wait()
    second = server.fork("work@b", dict(os.environ), [])
    assert [child.wait(), second.wait()] == [0, 0]
    server.close()
    wait_until(lambda: [one.pid for one in finished.processes()] == [os.getpid()])


def test_what_is_no_plain_command_goes_through_the_shell(server: Forkserver, finished: Project) -> None:
    file = Path("dvc.yaml")
    file.write_text(
        file.read_text().replace("cmd: python -m toy.work ${item.name}", "cmd: echo $0 && python -m toy.work ${item.name}")
    )
    child = server.fork("work@a", dict(os.environ), [])
    assert "sh\nwork@a at work on no device\n" in said(child)
    assert child.wait() == 0


def test_a_child_ends_when_its_parent_pipe_closes(server: Forkserver, finished: Project) -> None:
    finished.set(work__a__scale=4, work__a__seconds=100.0)
    child = server.fork("work@a", dict(os.environ), [])
    wait_until(lambda: "work@a" in (Path("journal.txt").read_text().splitlines() or [""])[-1])
    child.parent_pipe.close()
    assert child.wait() != 0
    server.close()
    wait_until(lambda: [one.pid for one in finished.processes()] == [os.getpid()])
