"""The AI judge: what it reads, how its love of a position is taken out, what is not asked twice; and the stage."""

import shutil

import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.files import digest, read_table, write_table
from tasks.feedback.judge.cache import Request
from tasks.feedback.judge.endpoint import KEY, Endpoint
from tasks.feedback.judge.judge import Judge, Judgement
from tasks.feedback.judge.local import LocalJudge
from tasks.feedback.judge.rlaif import measure
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.language import build_model, save_model
from tasks.models.text import MARK
from tasks.models.tokenizer import train_tokenizer
from tasks.rewards.judge.texts import JudgeTextsConfig, Question
from tests.processes import REPO
from tests.smoke.checkout import assign, variants
from tests.tasks.feedback.server import Endpoint as Server
from tests.tasks.feedback.server import completion, ok, shown
from tests.tasks.feedback.test_endpoint import SECRET, config

TEXTS = JudgeTextsConfig(
    preamble="Which?\n",
    exemplars=[{"query": "q", "first": "good", "second": "bad", "rationale": "bad is bad", "verdict": "1"}],
    sample="Q: {query}\n1: {first}\n2: {second}\n",
    rationale="Why:",
    ending="Better:",
)
YAML = """judge:
  preamble: "Which?\\n"
  exemplars: []
  sample: "Q: {query}\\n1: {first}\\n2: {second}\\n"
  rationale: "Why:"
  ending: "Better:"
"""
QUESTIONS = [Question(f"q{n}", "which", "short", "l" + "o" * n + "ng") for n in range(1, 41)]


@pytest.fixture
def served():
    running = []

    def start(reply, port=0):
        running.append(Server(reply, port))
        return running[-1]

    yield start
    for endpoint in running:
        endpoint.stop()


def judge_at(endpoint, folder, rationale_tokens=0, **values):
    return Judge(TEXTS, Endpoint(config(**values), endpoint.base_url, pause=0.01), folder, rationale_tokens)


def likes_length(body, number):
    """Sure of the longer one, whatever its position."""
    first, second = shown(body)
    return ok(completion("1", first=0.9 if len(first) > len(second) else 0.1))


def test_what_the_judge_reads():
    question = Question("q", " What is {first}? ", "{second} $(rm)", "b\n")
    sample = "Q: What is {first}?\n1: {second} $(rm)\n2: b\n"
    assert TEXTS.asked(question) == "Which?\nQ: q\n1: good\n2: bad\nBetter: 1\n\n" + sample
    reasoned = "Which?\nQ: q\n1: good\n2: bad\nWhy: bad is bad\nBetter: 1\n\n" + sample
    assert TEXTS.asked(question, reasons=True) == reasoned
    shown = "Which?\nQ: q\n1: good\n2: bad\n{}Better: 1\n\nQ: {{query}}\n1: {{first}}\n2: {{second}}\n{}"
    assert TEXTS.template(reasons=False) == shown.format("", "Better:")
    assert TEXTS.template(reasons=True) == shown.format("Why: bad is bad\n", "Why:")
    assert (TEXTS.before_verdict(), TEXTS.before_verdict(" so ")) == ("Better:", "Why: so\nBetter:")


@pytest.mark.parametrize(("name", "verdicts"), [("arithmetic", {"1", "2"}), ("assistant", {"1", "2"}), ("short", set())])
def test_the_texts_that_are_shipped(name, verdicts):
    texts = JudgeTextsConfig.load(REPO / f"data/judge/{name}.yaml")
    assert {exemplar.verdict for exemplar in texts.exemplars} == verdicts
    assert "{query}" in texts.sample


@pytest.mark.parametrize(("values", "says"), [
    ({"sample": "{first} {second} {third}"}, "{third} is not known"),
    ({"sample": "{query} {first}"}, "sample must contain {second}"),
    ({"ending": " "}, "ending is empty"),
])  # fmt: skip
def test_texts_that_judge_nothing(values, says):
    with pytest.raises(ValueError, match=r"sample|ending") as refused:
        JudgeTextsConfig(**TEXTS.model_dump() | values)
    assert says in str(refused.value)


def test_both_orders_are_asked_and_averaged(served, tmp_path):
    """P("1") is 0.9 for what stands first, less 0.3 if it is the short one: ½ (0.6 + 1 − 0.9) = 0.35 for the short one."""
    endpoint = served(lambda body, number: ok(completion("1", first=0.6 if shown(body)[0] == "short" else 0.9)))
    [judgement] = judge_at(endpoint, tmp_path).judge(QUESTIONS[:1], "judge")
    assert (judgement.shown, judgement.turned) == pytest.approx((0.6, 0.9))
    assert judgement.preference == pytest.approx(0.35)
    assert {shown(body) for body in endpoint.bodies} == {("short", "long"), ("long", "short")}
    assert QUESTIONS[0].turned().turned() == QUESTIONS[0]


def test_position_bias_is_where_the_order_decides():
    judged = [Judgement(0.6, 0.9), Judgement(0.2, 0.7), Judgement(0.8, 0.3), Judgement(0.1, 0.2), Judgement(None, 0.5)]
    figures = measure(judged)
    assert figures["judge/position_bias"] == 0.5  # the first and the fourth of four
    assert figures["judge/first_position"] == pytest.approx((0.6 + 0.9 + 0.2 + 0.7 + 0.8 + 0.3 + 0.1 + 0.2) / 8)
    assert (figures["judge/questions"], figures["judge/no_verdict"]) == (5, 1)
    assert figures["judge/position_bias_low"] < 0.5 < figures["judge/position_bias_high"]
    assert measure([Judgement(1.0, 1.0)])["judge/undecided"] == 1


def test_a_rationale_comes_before_the_verdict(served, tmp_path):
    def reply(body, number):
        return ok(completion(" Because.", None)) if body["max_tokens"] == 8 else ok(completion("1", first=0.7))

    endpoint = served(reply)
    judge = judge_at(endpoint, tmp_path, rationale_tokens=8, concurrency=1)
    [judgement] = judge.judge(QUESTIONS[:1], "judge")
    asked = [body["messages"][0]["content"] for body in endpoint.bodies]
    assert [text.endswith("\nWhy:") for text in asked] == [True, True, False, False]
    assert asked[2].endswith("2: long\nWhy: Because.\nBetter:")
    assert (judgement.rationale, judge.calls) == (" Because.", 4)


def test_nothing_is_asked_twice_and_a_judge_that_was_down_is_asked_the_rest(served, tmp_path):
    endpoint = served(lambda body, number: likes_length(body, number) if number <= 30 else (500, {}, b""))
    with pytest.raises(InputError, match="run the stage again when it is back"):
        judge_at(endpoint, tmp_path, retries=0).judge(QUESTIONS, "judge")
    endpoint.reply = likes_length
    failed = len(endpoint.bodies) - 30
    judge = judge_at(endpoint, tmp_path)
    judged = judge.judge(QUESTIONS, "judge")
    assert (judge.calls, judge.from_cache) == (50, 30)
    assert len(endpoint.bodies) == 80 + failed
    again = judge_at(endpoint, tmp_path)
    assert again.judge(QUESTIONS, "judge") == judged
    assert (again.calls, again.from_cache, again.prompt_tokens) == (0, 80, 80 * 50)
    assert len(endpoint.bodies) == 80 + failed
    assert all(each.preference == pytest.approx(0.1) for each in judged[2:])


def test_a_judge_that_talks_nonsense_is_not_asked_to_the_end(served, tmp_path):
    endpoint = served(lambda body, number: ok(completion("I like both.")))
    with pytest.raises(InputError, match=r"has said neither 1 nor 2 to any question so far, but 'I like both\.'"):
        judge_at(endpoint, tmp_path).judge(QUESTIONS[:8] * 25, "judge")
    assert len(endpoint.bodies) == 8 * 2 * 3  # one block of 64, with 8 different questions, each asked three times


def tiny(seed=0, positions=400):
    tokenizer = train_tokenizer(["Which? Q: which 1: short 2: long Better: 1 2 Why: bad is good"] * 3, 300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = build_model(tokenizer, seed, **shape, max_position_embeddings=positions, initializer_range=0.5)
    return model.eval(), tokenizer


def test_a_local_judge_says_what_its_next_token_says():
    model, tokenizer = tiny()
    requests = [Request(f"Q: {'which ' * n}Better:", 4, 0.0, True) for n in (1, 5, 3)]
    answers = dict(LocalJudge(model, tokenizer, "tiny", 0).answers(requests))
    ids = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(f" {verdict}")) for verdict in "12"]
    assert ids[0][:-1] == ids[1][:-1]  # here a space, and then the digit
    for request in requests:
        text = [tokenizer.bos_token_id, *tokenizer(request.text)["input_ids"], *ids[0][:-1]]
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, -1]
        expected = torch.softmax(logits[[ids[0][-1], ids[1][-1]]], 0)[0]
        assert answers[request].first == pytest.approx(float(expected), abs=1e-5)


def test_a_local_judge_with_a_chat_template_is_asked_in_it():
    """The question is the turn of the user, and the verdict begins its own turn: no space before it."""
    model, tokenizer = tiny()
    plain = [
        answer for _, answer in LocalJudge(model, tokenizer, "tiny", 0).answers([Request("<user>Better:<judge>", 4, 0.0, True)])
    ]
    tokenizer.chat_template = "<user>{{ messages[0].content }}{% if add_generation_prompt %}<judge>{% endif %}"
    [(_, answer)] = LocalJudge(model, tokenizer, "tiny", 0).answers([Request("Better:", 4, 0.0, True)])
    text = tokenizer("<user>Better:<judge>")["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([text])).logits[0, -1]
    expected = torch.softmax(logits[tokenizer.convert_tokens_to_ids(["1", "2"])], 0)[0]
    assert answer.first == pytest.approx(float(expected), abs=1e-5)
    assert answer.first != pytest.approx(plain[0].first, abs=1e-5)


def test_a_mark_of_the_chat_template_is_not_shown():
    assert MARK not in TEXTS.asked(Question("q", f"{MARK}which", "a", "b"))


def test_a_local_judge_asked_again_draws_its_verdict_and_its_rationale():
    model, tokenizer = tiny()
    judge = LocalJudge(model, tokenizer, "tiny", 0)
    requests = [Request(f"Q: {'which ' * n}Better:", 4, 1.0, True, 1) for n in range(40)]
    drawn = {answer.first for _, answer in judge.answers(requests)}
    assert drawn == {0.0, 1.0}
    rationales = [Request("Why:", 6, temperature, False) for temperature in (0.0, 1.0)]
    told = [[answer for _, answer in judge.answers([rationale])] for rationale in rationales for _ in range(2)]
    assert told[0] == told[1] != told[2] == told[3]


def test_a_local_judge_that_cannot_read_so_much():
    model, tokenizer = tiny(positions=16)
    with pytest.raises(InputError, match=r"takes \d+ tokens, it reads 16 at most"):
        list(LocalJudge(model, tokenizer, "tiny", 0).answers([Request("Q: which " * 9, 4, 0.0, True)]))


@pytest.fixture
def again(project, tmp_path):
    again = project.copy(tmp_path / "project")
    (again.folder / "judge.yaml").write_text(YAML)
    again.set("collect_preferences", source="judge", num_prompts=60, held_out_prompts=15)
    return again


def use(project, **values):
    params = {
        "templates": "judge.yaml", "model": "clever", "model_revision": None, "base_url": None, "rationale_tokens": 0,
        "repeat_rate": 0.5, "timeout": 5.0, "retries": 0, "concurrency": 4,
    }  # fmt: skip
    project.set("collect_preferences", judge=params | values)


def knows_the_answer(body, number):
    """Of the toy: 1 is right for left, 2 for right; sure of it, and of nothing else."""
    text = body["messages"][0]["content"]
    right = "1" if "Q: left" in text else "2"
    first, second = (side.endswith(right) for side in shown(body))
    return ok(completion("1" if first > second else "2", first=0.5 + 0.4 * (first - second)))


def test_the_stage_asks_an_endpoint_and_resumes_where_that_was_down(again, served):
    endpoint = served(lambda body, number: knows_the_answer(body, number) if number <= 20 else (503, {}, b""))
    use(again, base_url=endpoint.base_url)
    done = again.run("collect_preferences", **{KEY: SECRET})
    assert done.code == 1
    [sentence] = done.stderr.splitlines()
    assert "does not answer (status 503, tried 1 times)" in sentence
    assert not (again.folder / "runs/collect_preferences.json").exists()

    endpoint.reply = knows_the_answer
    done = again.run("collect_preferences", **{KEY: SECRET})
    assert done.code == 0, done.stderr
    figures = again.receipt("collect_preferences")["metrics"]
    assert figures["judge/from_cache"] == 20
    assert figures["judge/gold_agreement"] > 0.9  # of two right or two wrong ones it does not know the shorter
    assert figures["judge/position_bias"] == figures["judge/no_verdict"] == 0
    assert figures["judge/gold_agreement_low"] < figures["judge/gold_agreement"] <= figures["judge/gold_agreement_high"]
    assert figures["judge/self_agreement"] == 1
    assert figures["judge/prompt_tokens"] == 50 * (figures["judge/calls"] + 20)
    pairs = read_table(again.folder / "data/preferences.parquet")
    assert {row["split"] for row in pairs} == {"train", "test"}
    assert figures["pairs"] == figures["judge/questions"] - figures["judge/undecided"] == len(pairs)
    assert sum(row["gap"] > 0 for row in pairs) / len(pairs) == pytest.approx(figures["judge/gold_agreement"], abs=1e-6)
    assert read_table(again.folder / "data/feedback.parquet") == []
    judgements = read_table(again.folder / "reports/collect_preferences/judgements.parquet")
    assert len(judgements) == figures["judge/questions"]
    linked = again.client().get_run(again.receipt("collect_preferences")["run_id"]).data.tags["mlflow.linkedPrompts"]
    assert '"judge.judge"' in linked
    template = again.client().load_prompt("prompts:/judge.judge/1").template
    assert template == "Which?\nQ: {query}\n1: {first}\n2: {second}\nBetter:"

    outputs = [digest(again.folder / name) for name in ("data/preferences.parquet", "reports/collect_preferences")]
    asked = len(endpoint.bodies)
    endpoint.stop()  # a rerun needs it no more
    assert again.run("collect_preferences", **{KEY: SECRET}).code == 0
    assert len(endpoint.bodies) == asked
    assert again.receipt("collect_preferences")["metrics"]["judge/calls"] == 0
    assert [digest(again.folder / name) for name in ("data/preferences.parquet", "reports/collect_preferences")] == outputs
    holders = [file for file in again.folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert holders == []
    assert SECRET not in done.stdout + done.stderr


def test_the_stage_asks_a_local_model_where_nobody_knows_the_answers(again):
    prompts = read_table(again.folder / "data/prepared/prompts.parquet")
    write_table(again.folder / "data/prepared/prompts.parquet", [row | {"answer": None} for row in prompts])
    model, tokenizer = tiny()
    save_model(model, tokenizer, again.folder / "elsewhere")
    use(again, model="elsewhere")
    done = again.run("collect_preferences")
    assert done.code == 1
    pin = digest(again.folder / "elsewhere")
    assert f"write `model_revision: {pin}`" in done.stderr
    use(again, model="elsewhere", model_revision=pin, rationale_tokens=4)
    done = again.run("collect_preferences")
    assert done.code == 0, done.stderr
    figures = again.receipt("collect_preferences")["metrics"]
    assert figures["judge/calls"] > 100
    assert "judge/gold_agreement" not in figures
    assert 0 <= figures["judge/self_agreement"] <= 1
    pairs = read_table(again.folder / "data/preferences.parquet")
    assert {row["gap"] for row in pairs} == {None}
    before = digest(again.folder / "data/preferences.parquet")
    assert again.run("collect_preferences").code == 0
    assert again.receipt("collect_preferences")["metrics"]["judge/calls"] == 0
    assert digest(again.folder / "data/preferences.parquet") == before


def test_a_judge_that_goes_by_the_order_alone_decides_nothing(again, served):
    use(again, base_url=served(lambda body, number: ok(completion("1"))).base_url)
    done = again.run("collect_preferences")
    assert done.code == 1
    assert "the judge decided no question" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("values", "says"), [
    ({"model": "sft"}, "a question to the judge takes"),
    ({"model": "sft", "base_url": "http://localhost/v1"}, "name a model it serves"),
    ({"model": "judge_model", "base_url": "http://localhost/v1"}, "model is judge_model, but base_url names an endpoint"),
    ({"model": "judge_model", "rationale_tokens": 8}, "has learned to say 1 or 2 and not why; write rationale_tokens: 0"),
    ({"templates": "nowhere.yaml"}, "nowhere.yaml is missing"),
    ({"base_url": f"http://me:{SECRET}@localhost"}, "may hold a key"),
])  # fmt: skip
def test_judges_that_cannot_be_asked(again, values, says):
    use(again, **values)
    done = again.run("collect_preferences")
    assert done.code == 1
    [sentence] = done.stderr.splitlines()
    assert says in sentence
    assert SECRET not in sentence


def test_the_command_of_the_readme_is_understood(tmp_path):
    """Its settings on the committed params: an endpoint's judge, with keys that exist."""
    shutil.copy(REPO / "params.yaml", tmp_path)
    assign(tmp_path, variants()["judged"])
    loaded = CollectPreferencesConfig.load(tmp_path / "params.yaml")
    assert (loaded.source, loaded.kind) == ("judge", "pairwise")
    assert loaded.judge.base_url is not None
