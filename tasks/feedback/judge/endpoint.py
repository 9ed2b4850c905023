"""A judge behind an OpenAI-compatible endpoint: POST <base_url>/chat/completions.

What may pass (no connection, a timeout, status 408, 409, 429, 5xx) is tried again after a pause that doubles, with full jitter
(Brooker 2015, "Exponential backoff and jitter"), or as long as Retry-After says. What will not pass ends the stage, and so does
an endpoint that stays away; what it had answered is kept (tasks/feedback/judge/cache.py).

The key comes from the environment variable REALIGN_JUDGE_KEY: one of its own, so that no key goes to an address it was not
meant for. It is written nowhere, and taken out of a server's message before that is repeated.
"""

import email.utils
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from tasks.core.errors import InputError
from tasks.feedback.judge.cache import Answer, Request
from tasks.rewards.judge.settings import JudgeConfig

KEY = "REALIGN_JUDGE_KEY"
TRIES_FOR_SENSE = 3  # of an answer that cannot be read
PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds: before the second try, and at most
PASSING = {408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529}
LISTED_TOKENS = 5  # candidates for the verdict whose probabilities are asked for


class Endpoint:
    """Answers requests, several at a time."""

    whole_blocks = False  # an answer does not depend on what else is asked

    def __init__(self, config: JudgeConfig, base_url: str, pause: float = PAUSE):
        key = os.environ.get(KEY, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise InputError(f"the environment variable {KEY} holds no key: it has spaces, line breaks or letters beyond ASCII")
        self.config, self.base_url, self.pause, self.key = config, base_url.rstrip("/"), pause, key
        self.who = f"{config.model} at {self.base_url}/chat/completions"
        self.gives_logprobs = True
        self._stopping = threading.Event()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=config.timeout)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer]]:
        """In the order in which they come. After a failure nothing new is asked, and what comes in still is given."""
        failure: InputError | None = None
        self._stopping.clear()
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            futures = {pool.submit(self._answer, request): request for request in requests}
            try:
                for future in as_completed(futures):
                    try:
                        answer = future.result()
                    except InputError as error:
                        failure = failure or error
                    else:
                        if answer is not None:
                            yield futures[future], answer
            finally:
                self._stopping.set()
        if failure:
            raise failure

    def _answer(self, request: Request) -> Answer | None:
        """None where others have failed meanwhile."""
        answer = None
        for _ in range(TRIES_FOR_SENSE):
            try:
                payload = None if self._stopping.is_set() else self._post(self._body(request))
            except InputError:
                self._stopping.set()  # here, not where the answers are gathered: that may be many requests later
                raise
            if payload is None and self._stopping.is_set():
                return None
            answer = read_answer(payload, request)
            if not answer.broken and not (request.verdict and answer.first is None):
                break
        return answer

    def _body(self, request: Request) -> dict[str, Any]:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": request.text}],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.repeat,
        }
        wants_logprobs = request.verdict and request.temperature == 0 and self.gives_logprobs
        return body | ({"logprobs": True, "top_logprobs": LISTED_TOKENS} if wants_logprobs else {})

    def _post(self, body: dict[str, Any]) -> Any:
        """What the endpoint says, as JSON; None if it is no JSON, or if the stage stops."""
        trouble = ""
        for attempt in range(self.config.retries + 1):
            pause = min(LONGEST_PAUSE, self.pause * 2**attempt) * random.random()  # of no consequence for any result
            try:
                response = self._client.post(f"{self.base_url}/chat/completions", json=body)
            except httpx.RequestError as error:  # its words may quote a header
                trouble = type(error).__name__
            except httpx.InvalidURL:
                raise InputError("collect_preferences.judge.base_url is no address") from None
            else:
                if response.status_code == 200:
                    return _json(response)
                if response.status_code == 400 and "logprobs" in body and "logprobs" in response.text:
                    self.gives_logprobs = False
                    return self._post({name: value for name, value in body.items() if "logprobs" not in name})
                if response.status_code not in PASSING:
                    raise InputError(f"the judge at {self.base_url} refuses: {self._refusal(response)}")
                trouble = f"status {response.status_code}"
                pause = asked_to_wait(response.headers.get("Retry-After")) or pause
            if attempt < self.config.retries and self._stopping.wait(pause):
                return None
        raise InputError(
            f"the judge at {self.base_url} does not answer ({trouble}, tried {self.config.retries + 1} times); "
            "what it answered so far is kept: run the stage again when it is back"
        )

    def _refusal(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            says = "it does not accept" if self.key else "it wants"
            return f"status {response.status_code}, {says} the key in the environment variable {KEY}"
        payload = _json(response)
        error = payload.get("error", payload) if isinstance(payload, dict) else {}
        message = error.get("message", "") if isinstance(error, dict) else error
        said = " ".join(str(message).split())
        shown = said.replace(self.key, "***")[:200] if self.key else said[:200]
        return f"status {response.status_code}" + (f" ({shown})" if shown else "") + "; see collect_preferences.judge"


def read_answer(payload: Any, request: Request) -> Answer:
    """The first choice of a chat completion: its probabilities, or the sample where none are listed or a sample was wanted.

    Whatever is not in that schema is a broken answer, never an error.
    """
    try:
        choice, usage = payload["choices"][0], payload.get("usage") or {}
        text = choice["message"]["content"] or ""
        read, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        first = None
        if request.verdict:
            listed = (choice.get("logprobs") or {}).get("content") or []
            first = probability_of_first(listed) if request.temperature == 0 else None
            first = said_first(text) if first is None else first
        return Answer(str(text), first, read, written)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return Answer("", None, 0, 0, broken=True)


def probability_of_first(content: Sequence[Any]) -> float | None:
    """P("1") / (P("1") + P("2")) where the verdict stands: at the first token that is 1 or 2 (Lee et al. 2023). None if there
    is none, or no probabilities are listed there."""
    for token in content:
        if token["token"].strip() in ("1", "2"):
            mass = {"1": 0.0, "2": 0.0}
            for listed in token.get("top_logprobs") or []:
                if listed["token"].strip() in mass:
                    mass[listed["token"].strip()] += math.exp(min(0.0, listed["logprob"]))
            whole = sum(mass.values())
            return mass["1"] / whole if whole and math.isfinite(whole) else None
    return None


def said_first(text: str) -> float | None:
    """1 or 0 for a text that names one of the two alone, else None."""
    named = set(re.findall(r"(?<![\w.])[12](?![\w]|\.\d)", text))
    return float(named == {"1"}) if len(named) == 1 else None


def asked_to_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After, which counts them or names a date; at most a minute."""
    if not header:
        return None
    try:
        seconds = (
            float(header) if header.strip().isdigit() else email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        )
    except ValueError:
        return None
    return min(LONGEST_PAUSE, max(0.0, seconds))


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
