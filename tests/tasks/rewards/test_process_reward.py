"""Steps of a solution: where they end, which of them are right, and the head read at just those tokens."""

import pytest
import torch

from tasks.core.errors import InputError
from tasks.models.batch import PairSet, collate
from tasks.models.reward import load_reward_model, raw_scores, token_scores
from tasks.models.text import encode_completion, encode_completions, encode_completions_with_ends, encode_prompt
from tasks.rewards.process_reward import StepSet, process_score, step_scores, steps_of


@pytest.mark.parametrize(("text", "answer", "expected"), [
    ("3+4=7. 7*2=14. #### 14", "14", [("3+4=7.", True), ("7*2=14.", True), ("#### 14", True)]),
    ("3+4=8. 8*2=16. #### 16", "14", [("3+4=8.", False), ("8*2=16.", True), ("#### 16", False)]),
    ("We start with 3. We add 4 and get 7.", None, [("We start with 3.", None), ("We add 4 and get 7.", None)]),
    ("Facts: 3, +4. 7-4=2. #### 7", "7", [("Facts: 3, +4.", None), ("7-4=2.", False), ("#### 7", True)]),
    ("She has 3 + 4 = <<3+4=7>>7 ducks\n7 * $2.50 = $<<7*2.5=17.50>>17.50\nA: 17.5", "17.5",
     [("She has 3 + 4 = <<3+4=7>>7 ducks", True), ("7 * $2.50 = $<<7*2.5=17.50>>17.50", True), ("A: 17.5", True)]),
    ("She pays $3 + $4 = $7. (3+4)*2=15.", None, [("She pays $3 + $4 = $7.", True), ("(3+4)*2=15.", False)]),
    ("3+4=7. 7*2", "14", [("3+4=7.", True), ("7*2", False)]),  # cut off: the answer is missing
    ("", "14", []),
    (" \n ", "14", []),
])  # fmt: skip
def test_steps_and_their_labels(text, answer, expected):
    steps = steps_of(text, answer, "number")
    assert [(step.text, step.right) for step in steps] == expected
    assert all(text[: step.end].endswith(step.text) for step in steps)


def test_an_answer_that_is_no_number_labels_no_step():
    assert [step.right for step in steps_of("so it is blue. blue", "blue", "exact")] == [None, None]


def test_the_chain_is_as_good_as_its_weakest_step():
    assert process_score([3.0, 0.0, 5.0]) == pytest.approx(0.5)
    assert process_score([]) == 0.0


@pytest.fixture(scope="module")
def reward_model(project):
    return load_reward_model(project.folder / "models/reward_model", "cpu")


def test_a_step_is_read_at_its_last_token(reward_model):
    """The same as the score of the text cut off there, without end-of-text; whatever the tokens are."""
    tokenizer = reward_model.tokenizer
    text = "A: 1. so 2\nA: 1"
    ends = [step.end for step in steps_of(text, None, "number")]
    (ids,), (tokens,) = encode_completions_with_ends(tokenizer, [text], [ends])
    assert ids == encode_completion(tokenizer, text)
    assert [tokenizer.decode(ids[: token + 1]) for token in tokens] == ["A: 1.", "A: 1. so 2", text]
    prompt = encode_prompt(tokenizer, "left ab Ask.\n")
    with torch.no_grad():
        scores = token_scores(reward_model, collate([prompt], [ids], tokenizer.pad_token_id, "cpu"))[0]
        for token in range(len(ids)):
            alone = raw_scores(reward_model, collate([prompt], [ids[: token + 1]], tokenizer.pad_token_id, "cpu"))
            torch.testing.assert_close(scores[token], alone[0], atol=1e-5, rtol=0)
    texts = ["so 1", text, ""]
    batch = collate([prompt] * 3, encode_completions(tokenizer, texts), tokenizer.pad_token_id, "cpu")
    found = step_scores(reward_model, batch, tokenizer)
    assert [len(row) for row in found] == [1, 3, 0]
    assert found[1] == pytest.approx(scores[tokens].tolist(), abs=1e-5)


def test_steps_of_pairs_stand_in_the_order_of_the_batch(reward_model):
    rows = [
        {"prompt": "left ab Ask.\n", "chosen": "1+1=2. A: 1", "rejected": "so A: 2"},
        {"prompt": "right ab Ask.\n", "chosen": "so", "rejected": "1+1=1."},
    ]
    pairs = PairSet(rows, reward_model.tokenizer, "cpu")
    steps = StepSet(pairs, {"left ab Ask.\n": "1", "right ab Ask.\n": None}, "number", reward_model.tokenizer)
    with torch.no_grad():
        scores, right = steps.scores(reward_model, pairs.batch([1, 0]), [1, 0])
        assert right.tolist() == [1.0, 1.0, 0.0, 0.0]  # chosen of 0 (two steps), rejected of 1, rejected of 0
        assert steps.scores(reward_model, pairs.batch([0]), [0])[1].tolist() == [1.0, 1.0, 0.0]
        last = raw_scores(reward_model, collate([pairs.prompts[0]], [pairs.chosen[0][:-1]], pairs.pad_id, "cpu"))
    torch.testing.assert_close(scores[1], last[0], atol=1e-5, rtol=0)


def test_pairs_without_a_checkable_step(reward_model):
    pairs = PairSet([{"prompt": "left", "chosen": "yes", "rejected": "no"}], reward_model.tokenizer, "cpu")
    with pytest.raises(InputError, match="no step of the pairs can be checked"):
        StepSet(pairs, {"left": None}, "number", reward_model.tokenizer)
