"""Checkpoints: restored to the bit, atomic, and not too often."""

import resource

import pytest
import torch

from tasks.core import checkpoint
from tasks.core.checkpoint import Checkpoint
from tasks.core.errors import InputError


def parts(seed):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 4)
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1)}


def advance(model, optimizer, step):
    loss = model(torch.full((2, 4), float(step))).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_fresh_start(tmp_path):
    assert Checkpoint(tmp_path / "sft").restore(**parts(0)) == (0, {})


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    straight = parts(0)
    for step in range(6):
        advance(**straight, step=step)

    killed, saved = parts(0), Checkpoint(tmp_path)
    saved.restore(**killed)
    for step in range(3):
        advance(**killed, step=step)
    saved.save(3, {"history": [{"step": 2, "loss": 0.5}]})
    advance(**killed, step=3)  # lost with the process

    resumed = parts(1)
    start, journal = Checkpoint(tmp_path).restore(**resumed)
    assert (start, journal) == (3, {"history": [{"step": 2, "loss": 0.5}]})
    for step in range(start, 6):
        advance(**resumed, step=step)
    assert all(torch.equal(a, b) for a, b in zip(straight["model"].parameters(), resumed["model"].parameters(), strict=True))


def test_a_kill_while_saving_leaves_the_previous_checkpoint(tmp_path):
    saved = Checkpoint(tmp_path)
    saved.restore(**parts(0))
    saved.save(1, {})
    (tmp_path / "checkpoint.partial").write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:100])
    assert Checkpoint(tmp_path).restore(**parts(1)) == (1, {})


def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path):
    """The disk is full: /dev/full takes no byte."""
    saved = Checkpoint(tmp_path)
    saved.restore(**parts(0))
    saved.save(1, {})
    (tmp_path / "checkpoint.partial").symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)):
        saved.save(2, {})
    assert Checkpoint(tmp_path).restore(**parts(1)) == (1, {})


@pytest.mark.parametrize("limit", [1_000, 200_000, 399_000])
def test_a_disk_that_fills_up_in_the_middle_says_so(tmp_path, limit):
    """A process may write no file larger than the limit; the checkpoint has some 400,000 bytes."""
    saved, model = Checkpoint(tmp_path), torch.nn.Linear(300, 333)
    saved.restore(model=model)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            saved.save(1, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not saved.file.exists()


def test_no_pickle_is_run_when_loading(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"step": 1, "journal": Evil(), "parts": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(Exception, match=r"is damaged \(UnpicklingError\)"):
        Checkpoint(tmp_path).restore()
    assert not (tmp_path / "ran").exists()


def test_saving_takes_at_most_its_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setenv("REALIGN_CHECKPOINT_SECONDS", "0")
    saved = Checkpoint(tmp_path)
    saved.restore(**parts(0))
    assert saved.due()
    saved.save(1, {})
    cost, since = saved._last_cost, saved._saved_at
    for waited, due in ((0.9, False), (1.1, True)):
        monkeypatch.setattr(checkpoint.time, "monotonic", lambda now=since + waited * cost / checkpoint.MAX_COST: now)
        assert saved.due() == due


def test_removed_on_success(tmp_path):
    saved = Checkpoint(tmp_path / "key")
    saved.restore(**parts(0))
    saved.save(1, {})
    saved.remove()
    assert not (tmp_path / "key").exists()


def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path):
    model = torch.nn.Linear(1, 1)
    checkpoint = Checkpoint(tmp_path)
    checkpoint.restore(model=model)
    checkpoint.save(3, {})
    whole = checkpoint.file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        checkpoint.file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint.pt is damaged .*remove it"):
            Checkpoint(tmp_path).restore(model=model)
