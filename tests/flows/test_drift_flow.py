"""The drift check as a flow ends as its command does, and tells people of everything but "no drift"."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import StateType

from flows import drift
from tasks.prompt_oirl.drift import DRIFTED

ENDS = {
    0: ("no drift: 1.0%", "", StateType.COMPLETED, "Completed", []),
    DRIFTED: ("drift: 40.0%", "", StateType.FAILED, "Drifted", ["realign: the choice of prompts has drifted"]),
    1: ("", "new.jsonl is missing", StateType.FAILED, "Failed", ["realign: the drift check failed"]),
}


@pytest.mark.parametrize("code", ENDS)
def test_it_ends_as_the_command_does(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err, kind, name, subjects = ENDS[code]
    told: list[str] = []
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(returncode=code, stdout=f"{out}\n" if out else "", stderr=f"{err}\n" if err else "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(drift, "notify", lambda subject, body: told.append(subject))
    state = drift.drift.fn("new.jsonl")
    assert (state.type, state.name, state.message) == (kind, name, out or err)
    assert told == subjects
    assert asked[0][1:] == ["-m", "tasks.prompt_oirl.drift", "--model", "models:/prompt_oirl@newest", "--", "new.jsonl"]


def test_the_command_is_what_the_flow_takes_it_for() -> None:
    assert drift.DRIFTED == DRIFTED
