"""An AI judge in the annotator's place: RLAIF, Lee et al. 2023, "RLAIF vs. RLHF"; Bai et al. 2022, "Constitutional AI".

The judge reads preamble, exemplars, the sample (a query and two completions) and an ending after which it says 1 or 2. With a
and b shown in both orders, which takes its love of a position out,

    P(a preferred to b) = ½ (P("1" | a, b) + P("2" | b, a)),   P("1") against P("2") as the judge gives them

With `rationale_tokens` it first writes a rationale, at temperature 0, which it then reads before the ending.
tasks/rewards/judge/texts.py fills the texts in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.core import progress
from tasks.core.errors import InputError
from tasks.feedback.judge.cache import Answer, Answers, Request
from tasks.rewards.judge.texts import JudgeTextsConfig, Question
from tasks.rewards.judge.verdicts import VERDICT_TOKENS

QUESTIONS_AT_ONCE = 64
ENOUGH_NONSENSE = 16  # questions: if all the first have no verdict, the rest is not asked


class Backend(Protocol):
    """Whoever answers."""

    who: str
    whole_blocks: bool  # whether the answers of a block depend on the block as a whole

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer]]: ...


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
            orders = [order for question in block for order in (question, question.turned())]
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
        texts = [self.texts.asked(question, reasons=self.rationale_tokens > 0) for question in questions]
        rationales: list[str | None] = [None] * len(questions)
        if self.rationale_tokens:
            asked = [Request(text + self.texts.rationale, self.rationale_tokens, temperature, False, repeat) for text in texts]
            rationales = [answer.text for answer in self._ask(asked)]
        ends = [self.texts.before_verdict(rationale) for rationale in rationales]
        texts = [text + end for text, end in zip(texts, ends, strict=True)]
        verdicts = self._ask([Request(text, VERDICT_TOKENS, temperature, True, repeat) for text in texts])
        return [(rationale or "", verdict) for rationale, verdict in zip(rationales, verdicts, strict=True)]

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
