"""Prompts written by a policy: guards that stop what r̂ cannot know, a count of what they stopped, and real answers as judge."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tasks.core.files import read_json, read_table
from tasks.models.tokenizer import load_tokenizer
from tasks.prompt_oirl.propose import ProposePromptsConfig, judge
from tests.project import INSTRUCTIONS, PARAMS

KNOWN = list(INSTRUCTIONS.values())


class Constant(nn.Module):
    """An r̂ that gives every pair the same logit."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, queries, prompts):
        return torch.full((len(queries), len(prompts)), self.logit)


def test_reward_disagreement_and_distance_by_hand(project):
    """Members that say .25 and .75: mean .5, standard deviation .25. A known text is at distance 0."""
    tokenizer = load_tokenizer(project.folder / "models/base")
    members = [Constant(np.log(1 / 3)), Constant(np.log(3.0))]
    found = judge(members, tokenizer, [[1], [2]], ["Go.", "Go. Go.", "xyz"], KNOWN)
    torch.testing.assert_close(found["reward"], torch.full((3,), 0.5))
    torch.testing.assert_close(found["disagreement"], torch.full((3,), 0.25))
    same, near, far = found["distance"].tolist()
    assert same == pytest.approx(0, abs=1e-6)
    assert same <= near < far == pytest.approx(1)


@pytest.mark.parametrize(("key", "says"), [
    ("rollout_batch_size", "a step needs at least 2 instructions"), ("members", "one member cannot disagree"),
])  # fmt: skip
def test_one_of_a_kind_is_refused(key, says):
    with pytest.raises(ValidationError, match=says):
        ProposePromptsConfig(**PARAMS["propose_prompts"] | {key: 1})


def test_known_and_proposed_prompts_are_judged_by_real_answers(project):
    metrics = project.receipt("propose_prompts")["metrics"]
    table = read_table(project.folder / "reports/propose_prompts/candidates.parquet")
    assert [row["prompt"] for row in table if row["known"]] == KNOWN
    proposed = [row for row in table if not row["known"]]
    assert len(proposed) == min(3, metrics["candidates"])
    limits = PARAMS["propose_prompts"]
    assert all(row["distance"] <= limits["max_distance"] for row in proposed)
    assert all(row["disagreement"] <= limits["max_disagreement"] for row in proposed)
    assert ("gain" in metrics) == bool(proposed)
    history = read_json(project.folder / "reports/propose_prompts/history.json")
    assert {key for row in history for key in row} >= {"loss/cross_entropy", "loss/nll", "loss/policy", "rollout/too_far"}


@pytest.mark.parametrize(("guard", "other"), [("max_distance", "max_disagreement"), ("max_disagreement", "max_distance")])
def test_each_guard_stops_what_passes_the_other(project, tmp_path, guard, other):
    again = project.copy(tmp_path / "project")
    again.set("propose_prompts", num_steps=1, ensemble_steps=1, sft_steps=0, **{guard: 1e-9, other: 2.0})
    done = again.run("propose_prompts")
    assert (done.code, done.stderr) == (0, "")
    metrics = again.receipt("propose_prompts")["metrics"]
    assert metrics["candidates"] == 0
    stopped, passed = ("too_far", "too_disputed") if guard == "max_distance" else ("too_disputed", "too_far")
    assert metrics[stopped] > 0 == metrics[passed]
    assert "gain" not in metrics


def test_no_steps_no_proposals(project, tmp_path):
    again = project.copy(tmp_path / "project")
    again.set("propose_prompts", num_steps=0)
    assert again.run("propose_prompts").code == 0
    assert [file.name for file in (again.folder / "reports/propose_prompts").iterdir()] == ["metrics.json"]
