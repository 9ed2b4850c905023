"""People hear of failures and alarms through the block that REALIGN_NOTIFY names; nobody's flow fails for it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.blocks.core import Block

from flows import deploy
from flows.engine import notify as told
from flows.engine.promotion import alarms_of
from tasks.core.errors import InputError
from tasks.core.files import write_json


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    sent: list[tuple[str, str]] = []
    blocks = {
        "slack-webhook/team": SimpleNamespace(notify=lambda body, subject: sent.append((subject, body))),
        "secret/key": SimpleNamespace(),
        "slack-webhook/gone": SimpleNamespace(notify=lambda body, subject: 1 / 0),
    }

    def load(slug: str) -> SimpleNamespace:
        if slug not in blocks:
            raise ValueError("Unable to find block document")
        return blocks[slug]

    monkeypatch.setattr(Block, "load", load)
    return sent


def test_the_named_block_is_told(messages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(told.VARIABLE, "slack-webhook/team")
    told.check_block()
    told.notify("stages failed", "sft failed: no prompts")
    assert messages == [("stages failed", "sft failed: no prompts")]


def test_without_the_variable_nobody_is_told(messages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(told.VARIABLE, raising=False)
    told.check_block()
    told.notify("stages failed", "sft failed")
    assert messages == []


@pytest.mark.parametrize(("slug", "says"), [
    ("slack-webhook/taem", "REALIGN_NOTIFY: Prefect has no block slack-webhook/taem (Unable to find block document)"),
    ("secret/key", "REALIGN_NOTIFY: the block secret/key sends no notifications; name one that does"),
])  # fmt: skip
def test_a_block_that_cannot_serve_is_refused_at_the_start(
    messages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, slug: str, says: str
) -> None:
    monkeypatch.setenv(told.VARIABLE, slug)
    with pytest.raises(InputError) as error:
        told.check_block()
    assert str(error.value).startswith(says)
    assert messages == []


def test_a_service_that_is_down_fails_nothing(
    messages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(told.VARIABLE, "slack-webhook/gone")
    told.notify("stages failed", "sft failed")
    assert capsys.readouterr().err == "REALIGN_NOTIFY: slack-webhook/gone could not be notified: division by zero\n"


def test_alarms_are_told_by_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = [{"step": 0}, {"step": 1, "alarm/entropy": 1.0, "alarm/kl_budget": 1.0}]
    write_json(Path("reports/policy/ppo-0/history.json"), steps)
    write_json(Path("reports/policy/dpo-0/history.json"), [{"step": 0}])
    assert alarms_of(["sft", "policy@ppo-0", "policy@dpo-0"]) == "policy@ppo-0: entropy, kl_budget"


def test_a_pool_of_gpus_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "gpus_here", lambda: [])
    assert [deploy.has_machine(pool, known) for pool, known in (("cpu", set()), ("gpu", set()), ("gpu", {"gpu"}))] == [
        True, False, True,
    ]  # fmt: skip
    monkeypatch.setattr(deploy, "gpus_here", lambda: ["0"])
    assert deploy.has_machine("gpu", set())
