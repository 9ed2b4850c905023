"""What a judge of two completions reads: preamble, exemplars with their verdicts, the sample, and an ending before the verdict.

The texts are templates in a file of data/judge. What is judged is only ever inserted, never executed, and {names} in it stay.
The judge model (tasks/algorithms/judge_model.py) learns from the very texts that it will be asked.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from tasks.core.config import Config
from tasks.models.text import MARK


class Exemplar(Config):
    """A sample with its verdict, to show the judge what is meant."""

    query: str
    first: str
    second: str
    rationale: str
    verdict: Literal["1", "2"]


@dataclass(frozen=True)
class Question:
    """Two completions of a prompt, in the order in which they are shown first."""

    id: str
    query: str
    first: str
    second: str

    def turned(self) -> "Question":
        return Question(self.id, self.query, self.second, self.first)


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

    def asked(self, question: Question, reasons: bool = False) -> str:
        """Preamble, exemplars and the sample. reasons: whether the judge reasons first, as the exemplars then do."""
        parts = [self.preamble]
        for each in self.exemplars:
            shown = self._filled(each.query, each.first, each.second)
            before = shown + self.before_verdict(each.rationale if reasons else None)
            parts.append(f"{before}{behind(before, each.verdict)}\n\n")
        return "".join(parts) + self._filled(question.query, question.first, question.second)

    def template(self, reasons: bool) -> str:
        """All of it around {query}, {first} and {second}, up to the rationale or the verdict."""
        shown = self.asked(Question("", "{query}", "{first}", "{second}"), reasons)
        return f"{shown}{self.rationale}" if reasons else shown + self.before_verdict()

    def before_verdict(self, rationale: str | None = None) -> str:
        """What follows the sample: a rationale, if there is one, and the ending."""
        return self.ending if rationale is None else f"{self.rationale} {rationale.strip()}\n{self.ending}"

    def _filled(self, query: str, first: str, second: str) -> str:
        values = {"query": query.replace(MARK, "").strip(), "first": first.strip(), "second": second.strip()}
        return re.sub(r"{(query|first|second)}", lambda match: values[match[1]], self.sample)


def behind(text: str, verdict: str) -> str:
    """The verdict as it stands behind the text: after a space, unless the text ends with one or a chat template wrote it."""
    return verdict if text[-1:].isspace() or text.startswith(MARK) else f" {verdict}"
