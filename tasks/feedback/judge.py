"""An AI judge in the annotator's place: RLAIF, Lee et al. 2023, "RLAIF vs. RLHF"; Bai et al. 2022, "Constitutional AI".

The judge reads preamble, exemplars, the sample (a query and two completions) and an ending after which it says 1 or 2. With a
and b shown in both orders, which takes its love of a position out,

    P(a preferred to b) = ½ (P("1" | a, b) + P("2" | b, a)),   P("1") against P("2") as the judge gives them

With `rationale_tokens` it first writes a rationale, at temperature 0, which it then reads before the ending.
The texts are templates in a file of data/judge. What is judged is only ever inserted, never executed, and {names} in it stay.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import model_validator

from tasks.core import progress
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.feedback.answers import Answer, Answers, Request, answers_folder
from tasks.feedback.endpoint import Endpoint
from tasks.feedback.local_judge import LocalJudge
from tasks.feedback.settings import JudgeConfig
from tasks.models.external import pinned
from tasks.models.language import load_model
from tasks.models.tokenizer import load_tokenizer

QUESTIONS_AT_ONCE = 64
VERDICT_TOKENS = 4  # room for a space or a line before the 1 or 2
ENOUGH_NONSENSE = 16  # questions: if all the first have no verdict, the rest is not asked


class Exemplar(Config):
    """A sample with its verdict, to show the judge what is meant."""

    query: str
    first: str
    second: str
    rationale: str
    verdict: Literal["1", "2"]


class JudgeTextsConfig(Config):
    """A file of data/judge. `sample` holds {query}, {first}, {second}; `rationale` asks for one, `ending` for the verdict."""

    namespace = "judge"

    preamble: str
    exemplars: list[Exemplar]
    sample: str
    rationale: str
    ending: str

    @model_validator(mode="after")
    def _names_what_is_judged(self) -> Self:
        named = re.findall(r"{(\w*)}", self.sample)
        if unknown := set(named) - {"query", "first", "second"}:
            raise ValueError(f"sample: {{{min(unknown)}}} is not known; write {{query}}, {{first}} and {{second}}")
        if missing := {"first", "second"} - set(named):
            raise ValueError(f"sample must contain {{{min(missing)}}}")
        if not self.ending.strip():
            raise ValueError("ending is empty; write what the verdict follows, such as `Better:`")
        return self


class Backend(Protocol):
    """Whoever answers."""

    who: str
    whole_blocks: bool  # whether the answers of a block depend on the block as a whole

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer]]: ...


@dataclass(frozen=True)
class Question:
    """Two completions of a prompt, in the order in which they are shown first."""

    id: str
    query: str
    first: str
    second: str


@dataclass(frozen=True)
class Judgement:
    """What the judge said of a question: P("1") as shown and turned round, None without a verdict."""

    shown: float | None
    turned: float | None
    rationale: str = ""

    @property
    def preference(self) -> float | None:
        """P(first preferred), free of the position."""
        return None if self.shown is None or self.turned is None else (self.shown + 1 - self.turned) / 2


class Judge:
    """Texts, a backend, and the answers kept of it."""

    def __init__(self, texts: JudgeTextsConfig, backend: Backend, folder: Path, rationale_tokens: int):
        self.texts, self.backend, self.rationale_tokens = texts, backend, rationale_tokens
        self.kept = Answers(folder, backend.who)
        self.calls = self.from_cache = self.prompt_tokens = self.completion_tokens = 0

    def judge(self, questions: Sequence[Question], what: str) -> list[Judgement]:
        """Both orders of every question. Raises InputError if nothing but nonsense comes back."""
        judged: list[Judgement] = []
        blocks = [questions[i : i + QUESTIONS_AT_ONCE] for i in range(0, len(questions), QUESTIONS_AT_ONCE)]
        for block in progress.track(blocks, len(blocks), what):
            orders = [turned(question) if turn else question for question in block for turn in (False, True)]
            answers = self._ask_about(orders, 0.0, 0)
            for (text, shown), (_, other) in zip(answers[::2], answers[1::2], strict=True):
                judged.append(Judgement(shown.first, other.first, text))
            if len(judged) >= ENOUGH_NONSENSE and all(each.preference is None for each in judged):
                self._refuse_nonsense(answers)
        if judged and all(each.preference is None for each in judged):
            self._refuse_nonsense(answers)
        return judged

    def judge_again(self, questions: Sequence[Question]) -> list[float | None]:
        """The verdict, 1 for the first, at temperature 1 and in one order."""
        blocks = [questions[i : i + QUESTIONS_AT_ONCE] for i in range(0, len(questions), QUESTIONS_AT_ONCE)]
        return [answer.first for block in blocks for _, answer in self._ask_about(block, 1.0, 1)]

    def _ask_about(self, questions: Sequence[Question], temperature: float, repeat: int) -> list[tuple[str, Answer]]:
        """(rationale, verdict) of each question in the order it is given."""
        rationales = [""] * len(questions)
        if self.rationale_tokens:
            texts = [self.text(question) + self.texts.rationale for question in questions]
            asked = [Request(text, self.rationale_tokens, temperature, False, repeat) for text in texts]
            rationales = [answer.text for answer in self._ask(asked)]
        pairs = zip(questions, rationales, strict=True)
        texts = [self.text(question) + self._before_verdict(rationale) for question, rationale in pairs]
        verdicts = self._ask([Request(text, VERDICT_TOKENS, temperature, True, repeat) for text in texts])
        return list(zip(rationales, verdicts, strict=True))

    def text(self, question: Question) -> str:
        """Preamble, exemplars with their verdicts, and the sample."""
        parts = [self.texts.preamble]
        for each in self.texts.exemplars:
            space = "" if self.texts.ending[-1:].isspace() else " "
            parts.append(self._sample(each.query, each.first, each.second) + self._before_verdict(each.rationale))
            parts.append(f"{space}{each.verdict}\n\n")
        return "".join(parts) + self._sample(question.query, question.first, question.second)

    def _sample(self, query: str, first: str, second: str) -> str:
        values = {"query": query.strip(), "first": first.strip(), "second": second.strip()}
        return re.sub(r"{(query|first|second)}", lambda match: values[match[1]], self.texts.sample)

    def _before_verdict(self, rationale: str) -> str:
        return (f"{self.texts.rationale} {rationale.strip()}\n" if self.rationale_tokens else "") + self.texts.ending

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Those kept from disk, the others from the backend, kept as they come."""
        found = {request: self.kept.find(request) for request in requests}
        known = {request: answer for request, answer in found.items() if answer is not None}
        missing = [request for request in found if request not in known]
        if missing and self.backend.whole_blocks:
            missing, known = list(found), {}
        for request, answer in self.backend.answers(missing) if missing else ():
            self.kept.keep(request, answer)
            known[request] = answer
            self.calls += 1
        self.from_cache += len(found) - len(missing)
        self.prompt_tokens += sum(answer.prompt_tokens for answer in known.values())
        self.completion_tokens += sum(answer.completion_tokens for answer in known.values())
        return [known[request] for request in requests]

    def _refuse_nonsense(self, answers: Sequence[tuple[str, Answer]]) -> None:
        said = " ".join(answers[-1][1].text.split())[:80]
        raise InputError(
            f"the judge ({self.backend.who}) has said neither 1 nor 2 to any question so far, but {said!r}; "
            "see the ending in the file of collect_preferences.judge.templates, and whether it is a chat model"
        )


def make_judge(config: JudgeConfig, texts: JudgeTextsConfig, sft: Path, device: str, seed: int) -> Judge:
    """sft: the folder of the SFT model, for a judge that is that model."""
    backend: Backend
    if config.base_url is not None:
        backend = Endpoint(config, config.base_url)
    else:
        where = "collect_preferences.judge"
        source = sft.as_posix() if config.model == "sft" else pinned(config.model, config.model_revision, where, "model")
        revision = None if config.model == "sft" else config.model_revision
        model = load_model(source, device, revision).eval()
        tokenizer = load_tokenizer(source, revision)
        pin = digest(Path(source)) if Path(source).is_dir() else f"{source}@{revision}"
        backend = LocalJudge(model, tokenizer, f"{pin}, seed {seed}, device {device}", seed)
    return Judge(texts, backend, answers_folder(), config.rationale_tokens)


def turned(question: Question) -> Question:
    return Question(question.id, question.query, question.second, question.first)
