"""Rankings, ratings and thumbs as batches: whole rankings, one scale, and values that cannot be."""

import pytest
import torch

from tasks.core.errors import InputError
from tasks.feedback.judged import JudgedSet, agreement, held_out_agreement
from tasks.models.reward import load_reward_model

PROMPT = "left ab Ask.\n"


def row(id, completion, value, kind="ranking", annotator="a"):
    judgement = {"kind": kind, "value": value, "annotator": annotator}
    return {"id": id, "prompt": PROMPT, "completion": completion, **judgement, "split": "train"}


@pytest.fixture(scope="module")
def reward_model(project):
    return load_reward_model(project.folder / "models/reward_model", "cpu")


def judged(reward_model, rows, kind="ranking"):
    return JudgedSet(rows, kind, reward_model.tokenizer, "cpu")


def test_a_ranking_stays_together_and_each_annotator_has_one(reward_model):
    rows = [row("q1", "A: 1", 1.0), row("q2", "so 1", 2.0), row("q1", "A: 2", 2.0), row("q2", "A: 1", 1.0)]
    rows += [row("q1", "A: 1", 2.0, annotator="b"), row("q1", "A: 2", 1.0, annotator="b"), row("q3", "A: 1", 5.0, "rating")]
    found = judged(reward_model, rows)
    assert len(found) == 3
    assert found.values([1, 0]).tolist() == [2.0, 1.0, 1.0, 2.0]
    assert found.places([1, 0]).tolist() == [0, 0, 1, 1]
    assert found.places([2]).tolist() == [0, 0]
    texts = [reward_model.tokenizer.decode(ids[:-1]) for ids in found.batch([1, 0]).completions()]
    assert texts == ["so 1", "A: 1", "A: 1", "A: 2"]
    assert sorted(item for piece in found.by_length(2) for item in piece) == [0, 1, 2]
    assert [len(judged(reward_model, rows, kind)) for kind in ("rating", "thumbs")] == [1, 0]


def test_ratings_are_standardised_over_the_whole_set(reward_model):
    rows = [row(f"q{i}", "A: 1", value, "rating") for i, value in enumerate([1.0, 3.0, 5.0, 3.0])]
    found = judged(reward_model, rows, "rating")
    assert found.standardised(found.values([0, 1])).tolist() == pytest.approx([-(2**0.5), 0.0])
    same = judged(reward_model, [row("q1", "A: 1", 4.0, "rating")], "rating")
    assert same.standardised(same.values([0])).tolist() == [0.0]


@pytest.mark.parametrize(("kind", "value", "says"), [
    ("thumbs", 0.5, "'q1': a thumb is 1 or 0, found 0.5"),
    ("rating", float("nan"), "nan is not a number"),
    ("rating", None, "None is not a number"),
    ("ranking", 0.0, "ranks count from 1, found 0"),
])  # fmt: skip
def test_values_that_cannot_be(reward_model, kind, value, says):
    with pytest.raises(InputError, match=says):
        judged(reward_model, [row("q1", "A: 1", value, kind), row("q1", "A: 2", 1.0, kind)], kind)


def test_one_completion_is_no_ranking(reward_model):
    with pytest.raises(InputError, match="ranking 'q1' has one completion"):
        judged(reward_model, [row("q1", "A: 1", 1.0), row("q1", "A: 2", 1.0, annotator="b")])


def test_agreement_by_hand():
    """Of two rankings, three twos are judged differently: right, equal scores, wrong. Thumbs are all of one scale."""
    scores, places = torch.tensor([2.0, 1.0, 1.0, 0.0, 3.0]), torch.tensor([0, 0, 0, 1, 1])
    assert agreement(scores, torch.tensor([1.0, 1.0, 2.0, 1.0, 2.0]), places, "ranking") == (1.5, 3)
    assert agreement(scores, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0]), places, "ranking") == (0.0, 0)
    assert agreement(scores[:3], torch.tensor([1.0, 0.0, 1.0]), torch.arange(3), "thumbs") == (1.5, 2)


def test_the_held_out_agreement_takes_every_ranking(reward_model):
    rows = [row(f"q{i}", text, rank) for i in range(70) for text, rank in (("A: 1", 1.0 + i % 2), ("A: 2", 2.0 - i % 2))]
    found = held_out_agreement(reward_model, judged(reward_model, rows))
    assert found == {"feedback_agreement": 0.5, "feedback_pairs": 70.0}
    assert held_out_agreement(reward_model, judged(reward_model, [row("q", "A: 1", 1.0), row("q", "A: 2", 1.0)])) == {}
