"""The client of an endpoint against a real HTTP server: schema, every fault it may show, and where the key must not be."""

import email.utils
import threading
import time

import pytest

from tasks.core.errors import InputError
from tasks.feedback.judge.cache import Answer, Answers, Request
from tasks.feedback.judge.endpoint import KEY, Endpoint, asked_to_wait, probability_of_first, read_answer, said_first
from tasks.rewards.judge.settings import JudgeConfig
from tests.processes import PATIENCE
from tests.tasks.feedback import server
from tests.tasks.feedback.server import completion, ok

SECRET = "sk-this-is-nobodys-business"


def config(**values):
    given = {
        "templates": "judge.yaml", "model": "clever", "model_revision": None, "base_url": "http://localhost",
        "rationale_tokens": 0, "repeat_rate": 0.0, "timeout": PATIENCE, "retries": 2, "concurrency": 3,
    }  # fmt: skip
    return JudgeConfig(**given | values)


def request(text="which?", **values):
    return Request(**{"text": text, "max_tokens": 4, "temperature": 0.0, "verdict": True} | values)


@pytest.fixture
def served():
    """served(reply): a running endpoint."""
    running = []

    def start(reply, port=0):
        running.append(server.Endpoint(reply, port))
        return running[-1]

    yield start
    for endpoint in running:
        endpoint.stop()


def ask(endpoint, *requests, **values):
    client = Endpoint(config(**values), endpoint.base_url, pause=0.01)
    return dict(client.answers(requests or [request()]))


def test_the_verdict_is_read_from_the_probabilities(served, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    endpoint = served(lambda body, number: ok(completion("\n1", first=0.3)))
    answer = ask(endpoint)[request()]
    assert answer.first == pytest.approx(0.3)
    assert (answer.prompt_tokens, answer.completion_tokens) == (50, 2)
    [body] = endpoint.bodies
    assert body.pop("messages") == [{"role": "user", "content": "which?"}]
    assert body == {
        "path": "/v1/chat/completions", "model": "clever", "max_tokens": 4, "temperature": 0.0, "seed": 0, "logprobs": True,
        "top_logprobs": 5,
    }  # fmt: skip
    assert endpoint.keys == [f"Bearer {SECRET}"]


def test_without_probabilities_the_sampled_answer_counts(served):
    endpoint = served(lambda body, number: ok(completion("2.")))
    assert ask(endpoint)[request()].first == 0.0
    again = request(temperature=1.0, repeat=1)
    assert ask(endpoint, again)[again].first == 0.0
    assert "logprobs" not in endpoint.bodies[-1]
    assert endpoint.keys == [None, None]


def test_an_endpoint_that_refuses_to_list_probabilities_is_asked_without(served):
    def reply(body, number):
        if "logprobs" in body:
            return 400, {}, b'{"error": {"message": "this model does not support logprobs"}}'
        return ok(completion("1"))

    endpoint = served(reply)
    answers = ask(endpoint, *(request(f"{n}") for n in range(4)), concurrency=1, retries=0)
    assert [answer.first for answer in answers.values()] == [1.0] * 4
    assert len(endpoint.bodies) == 5  # only the first was asked twice


@pytest.mark.parametrize("fault", [
    (429, {"Retry-After": "0"}, b"slow down"), (500, {}, b""), (503, {}, b"<html>"), None,
])  # fmt: skip
def test_what_passes_is_tried_again(served, fault):
    endpoint = served(lambda body, number: fault if number < 3 else ok(completion("1")))
    assert ask(endpoint)[request()].first == 1.0
    assert len(endpoint.bodies) == 3


def test_a_rate_limit_says_how_long_to_wait(served, monkeypatch):
    waits = []

    class NoWait(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return self.is_set()

    endpoint = served(lambda body, number: (429, {"Retry-After": "30"}, b"") if number == 1 else ok(completion("1")))
    client = Endpoint(config(), endpoint.base_url)
    monkeypatch.setattr(client, "_stopping", NoWait())
    assert dict(client.answers([request()]))[request()].first == 1.0
    assert waits == [30.0]
    assert asked_to_wait("3600") == 60.0
    monkeypatch.setattr(time, "time", lambda: 1.0e9)
    assert asked_to_wait(email.utils.formatdate(1.0e9 + 20, usegmt=True)) == 20.0
    assert asked_to_wait(email.utils.formatdate(1.0e9 - 20, usegmt=True)) == 0.0
    assert asked_to_wait("soon") is None


def test_an_endpoint_that_is_too_slow_or_down(served):
    given_up = threading.Event()
    late = served(lambda body, number: given_up.wait(PATIENCE) and ok(completion("1")))
    with pytest.raises(InputError, match=r"does not answer \(ReadTimeout, tried 2 times\); what it answered so far is kept"):
        ask(late, timeout=0.1, retries=1)
    given_up.set()
    gone = served(lambda body, number: ok(completion("1")))
    gone.stop()
    with pytest.raises(InputError, match=r"does not answer \(ConnectError, tried 2 times\)"):
        ask(gone, retries=1)


def test_what_came_before_the_failure_is_given_and_nothing_more_is_asked(served):
    endpoint = served(lambda body, number: ok(completion("1")) if number < 6 else (500, {}, b""))
    answered, client = {}, Endpoint(config(retries=0), endpoint.base_url, pause=0.01)
    with pytest.raises(InputError, match="status 500"):
        answered.update(client.answers([request(f"{n}") for n in range(50)]))
    assert len(answered) == 5
    assert len(endpoint.bodies) <= 5 + config().concurrency  # each worker fails once at most


def test_no_more_at_a_time_than_allowed(served):
    """Each answer waits until three are asked for."""
    three = threading.Barrier(3, timeout=PATIENCE)
    endpoint = served(lambda body, number: three.wait() >= 0 and ok(completion("1")))
    assert len(ask(endpoint, *(request(f"{n}") for n in range(12)), concurrency=3)) == 12
    assert endpoint.most == 3


@pytest.mark.parametrize("nonsense", [b"{", b"[]", b"null", b'{"choices": []}', b"<html>", b'{"choices": [{"message": 3}]}'])
def test_a_page_that_is_no_answer_is_asked_for_again_and_not_kept(served, tmp_path, nonsense):
    endpoint = served(lambda body, number: (200, {}, nonsense) if number < 3 else ok(completion("1")))
    assert ask(endpoint)[request()].first == 1.0
    endpoint = served(lambda body, number: (200, {}, nonsense))
    answer = ask(endpoint)[request()]
    assert (answer.first, answer.broken, len(endpoint.bodies)) == (None, True, 3)
    kept = Answers(tmp_path, "who")
    kept.keep(request(), answer)
    assert kept.find(request()) is None


def test_an_answer_without_a_verdict_is_asked_for_again_and_then_counts_as_none(served):
    endpoint = served(lambda body, number: ok(completion("Both are fine.")))
    answer = ask(endpoint)[request()]
    assert (answer.first, answer.broken, len(endpoint.bodies)) == (None, False, 3)
    rationale = request(verdict=False)
    assert ask(endpoint, rationale)[rationale].text == "Both are fine."
    assert len(endpoint.bodies) == 4


@pytest.mark.parametrize(("status", "body", "says"), [
    (401, f"no such key: {SECRET}", f"status 401, it does not accept the key in the environment variable {KEY}"),
    (404, '{"error": {"message": "no model clever"}}', "status 404 (no model clever); see collect_preferences.judge"),
    (400, f"{{\"error\": \"bad: {SECRET}\"}}", "status 400 (bad: ***)"),
    (301, "", "status 301"),
])  # fmt: skip
def test_a_refusal_is_one_sentence_without_the_key(served, monkeypatch, status, body, says):
    monkeypatch.setenv(KEY, SECRET)
    endpoint = served(lambda asked, number: (status, {}, body.encode()))
    with pytest.raises(InputError) as refused:
        ask(endpoint)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("key", ["two words", "sk-\n-line", "sk-ключ"])
def test_a_key_that_cannot_be_one(monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(InputError, match="holds no key") as refused:
        Endpoint(config(), "http://localhost")
    assert key not in str(refused.value)


@pytest.mark.parametrize("address", ["http://me:secret@host/v1", "https://host/v1?key=secret", "host/v1"])
def test_an_address_that_may_hold_a_key_is_refused_without_repeating_it(address):
    with pytest.raises(ValueError, match="an address") as refused:
        config(base_url=address)
    assert "secret" not in str(refused.value.errors()[0]["ctx"]["error"])


def test_reading_answers():
    listed = [{"token": "Better", "top_logprobs": []}, {"token": " 2", "top_logprobs": [{"token": " 2", "logprob": 0.0}]}]
    assert probability_of_first(listed) == 0.0
    assert probability_of_first([{"token": "1", "top_logprobs": [{"token": "x", "logprob": 0.0}]}]) is None
    assert [said_first(text) for text in (" 1", "Answer 2.", "12", "1 or 2", "1.5", "", "1 is better: 1")] == [
        1.0, 0.0, None, None, None, None, 1.0,
    ]  # fmt: skip
    assert read_answer(completion(None), request()) == Answer("", None, 50, 2)
    assert read_answer(completion("1", first=0.3), request()).first == pytest.approx(0.3)
    assert read_answer(completion("1", first=0.3), request(temperature=1.0)).first == 1.0  # the sample


def test_answers_are_kept_by_content(tmp_path):
    kept = Answers(tmp_path, "model at address")
    answer = Answer("1", 0.25, 50, 2)
    kept.keep(request(), answer)
    assert kept.find(request()) == answer
    others = [request("other"), request(temperature=1.0), request(repeat=1), request(max_tokens=5)]
    assert [kept.find(other) for other in others] == [None] * 4
    assert Answers(tmp_path, "another model at address").find(request()) is None
