"""What a stage does when something goes wrong: an honest exit code, one sentence, an honest status, nothing half-written."""

import signal

import pytest

from tests.processes import wait_until

WITHOUT_PRIVILEGE = """
import ctypes, runpy
# Root may write anywhere: give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, bits 1 and 2 of capabilities(7).
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
kernel = ctypes.CDLL(None)
kernel.capget(header, sets)
sets[0] &= ~0b110
kernel.capset(header, sets)
runpy.run_path("tiny.py", run_name="__main__")
"""


def one_sentence(done, *words):
    """Exit code 1 and one line, without a traceback."""
    lines = done.stderr.strip().splitlines()
    assert done.code == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    return True


def status(tiny):
    (run,) = tiny.runs()
    return run.info.status


def nothing_published(tiny):
    return not tiny.outputs() and not (tiny.folder / "runs").exists()


def test_an_unknown_key(tiny):
    params = tiny.folder / "params.yaml"
    params.write_text(params.read_text().replace("tiny: {num_steps: 12, learning_rate", "tiny: {num_steps: 12, learning_rat"))
    assert one_sentence(tiny.run(), "tiny: params.yaml: unknown key `tiny.learning_rat`; did you mean `learning_rate`?")
    assert nothing_published(tiny)
    assert not tiny.runs()


def test_bad_input_in_the_middle_of_a_plain_process(tiny):
    """With all its imports: no library adds a line to the sentence."""
    assert one_sentence(tiny.plainly(TROUBLE="input 3"), "tiny: row 7 of input.txt is empty; fill it in")
    assert status(tiny) == "FAILED"
    assert nothing_published(tiny)


def test_a_missing_dependency(tiny):
    (tiny.folder / "input.txt").unlink()
    assert one_sentence(tiny.run(), "tiny: input.txt is missing; if a stage makes it, `dvc repro` or `dvc pull` brings it")
    assert nothing_published(tiny)


def test_a_missing_params_file(tiny):
    (tiny.folder / "params.yaml").unlink()
    assert one_sentence(tiny.run(), "tiny: params.yaml is missing")


@pytest.mark.parametrize("step", [-2, 0, 5])
def test_a_bug_shows_its_traceback_and_publishes_nothing(tiny, step):
    """-2: after one of three outputs was written."""
    done = tiny.run(f"crash {step}")
    assert done.code == 1
    assert "RuntimeError: a bug" in done.stderr
    assert "Traceback" in done.stderr
    assert status(tiny) == "FAILED"
    assert nothing_published(tiny)


def test_a_failed_run_leaves_the_outputs_of_the_run_before(tiny, whole):
    assert tiny.run().code == 0
    before = tiny.outputs()
    (tiny.folder / "input.txt").write_text("4.0")
    assert tiny.run("crash -2").code == 1
    assert tiny.outputs() == before == whole.outputs()


def test_what_a_failed_run_had_written_is_not_published_by_the_next(tiny, whole):
    """An output holds what its own run wrote, or its hash would depend on what was tried before."""
    assert tiny.run("crash -2", EXTRA_FILE="leftover.json").code == 1
    assert tiny.run().code == 0
    assert sorted(tiny.outputs()) == sorted(whole.outputs())


@pytest.mark.parametrize(("trouble", "code"), [("term", 143), ("interrupt", 130)])
def test_a_signal_ends_the_stage_at_once(tiny, trouble, code):
    assert tiny.run(f"{trouble} 5").code == code
    assert status(tiny) == "KILLED"
    assert nothing_published(tiny)


def test_sigterm_from_outside_while_the_stage_sleeps(tiny):
    running = tiny.nursery.start(tiny.folder, "tiny.py", TROUBLE="wait 2")
    wait_until(lambda: "waiting" in running.output() or not running.alive())
    running.send(signal.SIGTERM)
    assert running.wait().code == 143  # it would wait for ever: nobody says go
    assert status(tiny) == "KILLED"


@pytest.mark.parametrize("trouble", ["kill 0", "kill 1", "kill 7", "kill -2", "term 7", "crash 7"])
def test_killed_and_run_again_ends_with_the_same_bits(tiny, whole, trouble):
    """kill is SIGKILL: no handler, no farewell. -2: after the last step, while outputs are written."""
    assert tiny.run(trouble).code != 0
    done = tiny.run()
    assert done.code == 0, done.stderr
    assert ("resumes at step" in done.stdout) == (trouble != "kill 0")
    assert tiny.outputs() == whole.outputs()


@pytest.mark.parametrize("trouble", ["kill 7", "term 7"])
def test_a_resumed_stage_continues_its_run_without_losing_or_doubling_a_point(tiny, trouble):
    tiny.run(trouble)
    (before,) = tiny.runs()
    tiny.run()
    (after,) = tiny.runs()
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert int(after.data.tags["resumed_at_step"]) > 0
    assert tiny.steps() == list(range(12))


@pytest.mark.parametrize(("file", "old", "new"), [
    ("input.txt", "3.0", "4.0"), ("params.yaml", "learning_rate: 0.1", "learning_rate: 0.2"), ("tiny.py", "Fits y", "Fitted y"),
])  # fmt: skip
def test_other_inputs_never_resume_the_checkpoint(tiny, file, old, new):
    """Data, params or code. The killed run is closed, its checkpoint removed, and the new run starts at step 0."""
    tiny.run("kill 7")
    (tiny.folder / file).write_text((tiny.folder / file).read_text().replace(old, new, 1))
    done = tiny.run()
    assert done.code == 0
    assert "resumes" not in done.stdout
    assert [run.info.status for run in tiny.runs()] == ["FINISHED", "KILLED"]
    assert not (tiny.folder / ".scratch/tiny").exists()


@pytest.mark.parametrize("changed", [False, True], ids=["same-inputs", "other-inputs"])
def test_a_killed_run_that_mlflow_no_longer_knows_does_not_matter(tiny, database, changed):
    """Someone removed mlflow.db, or went over to a server: the stage trains, with a new run."""
    tiny.run("kill 7")
    (tiny.folder / "mlflow.db").write_bytes(database.read_bytes())
    if changed:
        (tiny.folder / "input.txt").write_text("4.0")
    done = tiny.run()
    assert done.code == 0, done.stderr
    assert status(tiny) == "FINISHED"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tiny, whole):
    done = tiny.run("nan 7")
    assert one_sentence(done, "loss/square is nan at step 7", "checkpoint", "lower `tiny.learning_rate`")
    assert status(tiny) == "FAILED"
    assert nothing_published(tiny)
    again = tiny.run()  # whatever made the NaN is gone: the checkpoint was good
    assert "resumes at step" in again.stdout
    assert tiny.outputs() == whole.outputs()


def test_a_nan_before_the_first_checkpoint_promises_none(tiny):
    done = tiny.run("nan 0")
    assert one_sentence(done, "loss/square is nan at step 0; no checkpoint was due yet; lower `tiny.learning_rate`")
    assert not list(tiny.folder.rglob("checkpoint.pt"))


@pytest.mark.parametrize(("folder", "output"), [
    ("models", "models/tiny"), ("data", "data/line.json"), ("reports", "reports/tiny"),
])  # fmt: skip
def test_no_permission_to_write(tiny, folder, output):
    """Whichever of the three outputs it is, the other two are not published either."""
    (tiny.folder / folder).mkdir(mode=0o555)
    (tiny.folder / "unprivileged.py").write_text(WITHOUT_PRIVILEGE)
    done = tiny.nursery.run(tiny.folder, "unprivileged.py")
    assert one_sentence(done, f"tiny: cannot write {output} (Permission denied)")
    assert status(tiny) == "FAILED"
    assert nothing_published(tiny)


@pytest.mark.parametrize("file", ["weights.json.partial", "weights.parquet"])
def test_a_full_disk_while_writing_an_output(tiny, file):
    """/dev/full takes no byte, like a full disk; each library says so in its own way."""
    assert one_sentence(tiny.run(FULL_DISK=file), "tiny: cannot write")
    assert status(tiny) == "FAILED"
    assert nothing_published(tiny)


def test_a_full_disk_while_saving_a_checkpoint(tiny):
    tiny.run("kill 7")
    (folder,) = (file.parent for file in (tiny.folder / ".scratch/tiny").glob("*/checkpoint.pt"))
    (folder / "checkpoint.partial").symlink_to("/dev/full")
    assert one_sentence(tiny.run(), "tiny: cannot write")
    assert status(tiny) == "FAILED"
    assert (folder / "checkpoint.pt").exists()
