"""Stages that end at the same time all find their way into dvc.lock."""

from pathlib import Path

import pytest

from tests.flows.rounds import lost_entries


def test_no_entry_of_dvc_lock_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # what is set in there ends with the test
    assert lost_entries(tmp_path, rounds=6) == 0
