"""Inputs that change while a stage runs: what is recorded is what the stage was given, or nothing is."""

import pytest

from tests.processes import wait_until


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("params.yaml", "num_steps: 12", "num_steps: 14", "params.yaml changed while it ran: `tiny.num_steps` 12 → 14"),
        ("params.yaml", "num_steps: 12", "num_step: 12", "params.yaml changed while it ran (params.yaml: unknown key"),
        ("params.yaml", "threads: 1", "threads: 2", "params.yaml changed while it ran: `runtime.threads` 1 → 2"),
        ("input.txt", "3.0", "4.0", "input.txt changed while it ran"),
        ("tiny.py", "Fits y", "Fitted y", "tiny.py changed while it ran"),
    ],
)
def test_a_stage_whose_inputs_changed_publishes_nothing(tiny, file, old, new, sentence):
    running = tiny.nursery.start(tiny.folder, "tiny.py", TROUBLE="wait 2")
    wait_until(lambda: "waiting" in running.output() or not running.alive())
    changed = tiny.folder / file
    before = changed.read_text()
    changed.write_text(before.replace(old, new, 1))
    (tiny.folder / "go").touch()
    done = running.wait()
    assert done.code == 1
    assert done.stderr.startswith(f"tiny: {sentence}")
    assert len(done.stderr.splitlines()) == 1
    assert not tiny.outputs()
    assert not (tiny.folder / "runs").exists()
    [run] = tiny.runs()
    assert run.info.status == "FAILED"


def test_what_the_stage_does_not_read_may_change(tiny):
    """Another namespace, the same content written again, a comment in params.yaml."""
    running = tiny.nursery.start(tiny.folder, "tiny.py", TROUBLE="wait 2")
    wait_until(lambda: "waiting" in running.output() or not running.alive())
    params = tiny.folder / "params.yaml"
    params.write_text(params.read_text().replace("num_steps: 3,", "num_steps: 4,") + "# for the next run\n")
    (tiny.folder / "input.txt").write_text("3.0")
    (tiny.folder / "go").touch()
    done = running.wait()
    assert done.code == 0, done.stderr
    assert tiny.outputs()
