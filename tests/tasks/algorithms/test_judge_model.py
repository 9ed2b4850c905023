"""The judge model: what it learns from, what its loss is, that it learns, and that it judges in collect_preferences."""

import math
from collections import Counter

import pytest
import torch

from tasks.algorithms.judge_model import ComparisonSet, make_room, verdict_losses
from tasks.core.errors import InputError
from tasks.core.files import read_json, read_table, write_table
from tasks.core.statistics import sign_flip
from tasks.feedback.annotator.choices import Candidate
from tasks.feedback.judge.judge import Judge
from tasks.feedback.judge.local import LocalJudge
from tasks.models.language import load_policy
from tasks.models.text import TaskConfig, encode_prompts
from tasks.rewards.judge.texts import JudgeTextsConfig, Question
from tasks.rewards.judge.verdicts import first_probabilities
from tasks.rl.logprobs import completion_logprobs
from tests.project import PARAMS, TEMPLATES
from tests.tasks.algorithms.test_refusals import refused

GOOD, BAD = Candidate("A: 1", 1.0), Candidate("so A: 2", 0.0)
ROW = {"id": "q", "query": "left ab"}


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def judge(project):
    return load_policy(project.folder / "models/judge_model", "cpu")


@pytest.fixture(scope="module")
def texts(project):
    return JudgeTextsConfig.load(project.folder / TEMPLATES)


class Recorder:
    """A backend that keeps what it is asked."""

    who, whole_blocks = "recorder", False

    def __init__(self, backend):
        self.backend, self.asked = backend, []

    def answers(self, requests):
        self.asked += [request.text for request in requests]
        return self.backend.answers(requests)


def test_both_orders_are_learned_with_the_verdict_that_is_right(judge, texts):
    tokenizer = judge[1]
    learned = ComparisonSet([(ROW, "train", GOOD, BAD), (ROW, "train", BAD, GOOD)], texts, tokenizer, "cpu")
    batch = learned.batch([0, 1])
    read = [tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.prompts()]
    assert read == [
        "left ab\nA: 1\nso A: 2\n:", "left ab\nso A: 2\nA: 1\n:",  # as drawn
        "left ab\nso A: 2\nA: 1\n:", "left ab\nA: 1\nso A: 2\n:",  # turned round
    ]  # fmt: skip
    assert [tokenizer.decode(ids) for ids in batch.completions()] == [" 1", " 2", " 2", " 1"]
    assert len(learned) == 2


def test_it_learns_from_the_text_that_it_will_be_asked(judge, texts, tmp_path):
    model, tokenizer = judge
    recorder = Recorder(LocalJudge(model, tokenizer, "judge", 0))
    Judge(texts, recorder, tmp_path, 0).judge([Question("q", ROW["query"], GOOD.text, BAD.text)], "judge")
    learned = ComparisonSet([(ROW, "train", GOOD, BAD)], texts, tokenizer, "cpu")
    assert recorder.asked == learned.texts


def test_the_loss_is_of_the_verdict_alone(judge, texts):
    """By hand: −log π of the space and of the digit; nothing of the text before them, nor of an end behind them."""
    model, tokenizer = judge
    batch = ComparisonSet([(ROW, "train", GOOD, BAD)], texts, tokenizer, "cpu").batch([0])
    losses = verdict_losses(completion_logprobs(model, batch), batch.completion_mask)
    for prompt, verdict, loss in zip(batch.prompts(), batch.completions(), losses, strict=True):
        logprobs = torch.log_softmax(model(torch.tensor([prompt + verdict])).logits[0], dim=-1)
        expected = -sum(logprobs[len(prompt) - 1 + t, token].item() for t, token in enumerate(verdict))
        assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert verdict_losses(torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[1, 1, 0]])).tolist() == [3.0]


def test_no_prompt_that_is_asked_about_is_learned_from(project):
    prompts = read_table(project.folder / "data/prepared/prompts.parquet")
    train = [row["prompt"] for row in prompts if row["split"] == "train"]
    learned = train[PARAMS["collect_preferences"]["num_prompts"] :]
    figures = project.receipt("judge_model")["metrics"]
    assert figures["prompts"] == len(learned) == 20
    assert not set(learned) & {row["prompt"] for row in read_table(project.folder / "data/preferences.parquet")}
    supervision = read_json(project.folder / "models/judge_model/supervision.json")
    assert supervision == {"prompts": 20, "comparisons": figures["comparisons"]}


def test_it_learns_to_judge(project, texts):
    """Test prompts: the margin for the right answer, after against before training; a sign-flip test over prompts."""
    prompts = [row for row in read_table(project.folder / "data/prepared/prompts.parquet") if row["split"] == "test"][:40]
    asked = [(row, "test", Candidate(row["solution"], 1.0), Candidate(row["mistake"], 0.0)) for row in prompts]
    margins = []
    for folder in ("models/base", "models/judge_model"):
        model, tokenizer = load_policy(project.folder / folder, "cpu")
        shown = ComparisonSet(asked, texts, tokenizer, "cpu")
        chances = first_probabilities(model, tokenizer, shown.texts)
        margins.append([a - b for a, b in zip(chances[:40], chances[40:], strict=True)])
    gains = [after - before for before, after in zip(*margins, strict=True)]
    assert sum(gains) > 0
    assert sign_flip(gains) < 0.01
    figures = project.receipt("judge_model")["metrics"]
    assert figures["judge/gold_agreement_low"] > 0.5
    assert figures["judge/questions"] > 20
    assert 0 <= figures["ece"] <= 0.5
    history = read_json(project.folder / "reports/judge_model/history.json")
    assert history[-1]["loss/cross_entropy"] < math.log(2) < history[0]["loss/cross_entropy"]


def test_it_judges_what_the_annotator_would_be_asked(again, project):
    again.set("collect_preferences", source="judge")
    again.set("collect_preferences.judge", model="judge_model")
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    figures = again.receipt("collect_preferences")["metrics"]
    assert figures["judge/gold_agreement_low"] > 0.5
    judged, annotated = (questions(each.folder / "data/preferences.parquet") for each in (again, project))
    assert judged.total() == figures["pairs"] > 50
    assert judged <= annotated


def questions(file):
    return Counter((row["prompt"], *sorted((row["chosen"], row["rejected"]))) for row in read_table(file))


def test_without_training_there_is_no_judge(again):
    again.set("judge_model", num_steps=0)
    done = again.run("judge_model")
    assert done.code == 0, done.stderr
    assert [file.name for file in (again.folder / "models/judge_model").iterdir()] == ["supervision.json"]
    again.set("collect_preferences", source="judge")
    again.set("collect_preferences.judge", model="judge_model")
    assert refused(again, "collect_preferences", "was not trained: raise judge_model.num_steps")


@pytest.mark.parametrize(("namespace", "values", "says"), [
    ("collect_preferences", {"num_prompts": 140}, "asks about every training prompt and leaves none"),
    ("judge_model", {"batch_size": 10_000}, "batch_size 10000 is larger than the data"),
    ("judge_model", {"num_steps": -1}, "`judge_model.num_steps` is -1"),
    ("collect_preferences.judge", {"templates": "nowhere.yaml"}, "nowhere.yaml is missing"),
])  # fmt: skip
def test_params_of_no_use(again, namespace, values, says):
    again.set(namespace, **values)
    assert refused(again, "judge_model", says)


def test_there_is_room_for_the_longest_question(judge, texts, project):
    """The base model has 32 positions. Rotary ones go on, learned ones end."""
    model, tokenizer = load_policy(project.folder / "models/base", "cpu")
    task = TaskConfig(prompt_format="{query}", max_prompt_tokens=20, max_new_tokens=10, verifier="number")
    around = len(encode_prompts(tokenizer, ["\n\n\n:"])[0])
    make_room(model, texts, tokenizer, task)
    assert model.config.max_position_embeddings == around + 20 + 2 * 10 + 4
    assert judge[0].config.max_position_embeddings == around + 16 + 2 * 8 + 4 > 32
    make_room(model, texts, tokenizer, task.model_copy(update={"max_new_tokens": 1}))
    assert model.config.max_position_embeddings == around + 20 + 2 * 10 + 4
    model.config.rope_parameters = None
    with pytest.raises(InputError, match="whose positions are learned, reads"):
        make_room(model, texts, tokenizer, task.model_copy(update={"max_new_tokens": 11}))


def test_no_validation_prompts_to_be_measured_on(again):
    prompts = read_table(again.folder / "data/prepared/prompts.parquet")
    write_table(again.folder / "data/prepared/prompts.parquet", [row for row in prompts if row["split"] != "validation"])
    assert refused(again, "judge_model", "no validation prompts to measure the judge on")


def test_prompts_whose_answers_nobody_knows(again):
    prompts = read_table(again.folder / "data/prepared/prompts.parquet")
    write_table(again.folder / "data/prepared/prompts.parquet", [row | {"answer": None} for row in prompts])
    assert refused(again, "judge_model", "needs prompts with an answer")
