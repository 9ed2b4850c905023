"""Written solutions of arithmetic stories, by crowds of people who err.

Every instruction has its crowd, with its own format and its own mix of problems it has met. The less familiar a kind of
problem, the more often the crowd makes its habitual mistake; so a model trained on the demonstrations is better at some kinds
under one instruction and at others under another, which is what Prompt-OIRL has to find out.
"""

import random
from typing import Literal, NamedTuple

from tasks.data.arithmetic import SIGNS, Book, Crowd, Operation, Problem, Step, calculate
from tasks.data.templates import fill

LARGEST_WRITTEN = 999
SLIPS = (-10, -2, -1, 1, 2, 10)


class Solution(NamedTuple):
    text: str
    answer: int


def kind_weights(book: Book, crowd: str) -> dict[str, float]:
    """The mix of kinds this crowd is asked: partly its habit, partly even."""
    habit = book.crowds[crowd].habit
    return {kind: book.skew * share + (1 - book.skew) / len(habit) for kind, share in habit.items()}


def solve(book: Book, problem: Problem, crowd: str, rng: random.Random, noise: float = 1.0) -> Solution:
    """One person's solution. noise scales every error rate: 0 is always right, 4 a careless colleague."""
    person = _Person(book, book.crowds[crowd], problem.kind, rng, noise)
    steps = person.work_out(problem.steps[0].left, person.understand(problem))
    return Solution(_write(book.crowds[crowd].writes, steps, book), steps[-1].value)


class _Person:
    def __init__(self, book: Book, crowd: Crowd, kind: str, rng: random.Random, noise: float):
        self.errors, self.crowd, self.rng, self.noise = book.errors, crowd, rng, noise
        self.unfamiliar = 1 - crowd.habit[kind] / max(crowd.habit.values())

    def understand(self, problem: Problem) -> list[tuple[Operation, int]]:
        """What the person means to do to the first number: at most one misunderstanding."""
        plan = [(step.operation, step.right) for step in problem.steps]
        errors, rng = self.errors, self.rng
        if problem.irrelevant is not None and self._errs(errors.uses_irrelevant):
            plan.insert(rng.randint(1, len(plan)), (rng.choice(("add", "take")), problem.irrelevant))
        elif self.crowd.pads and problem.irrelevant is None and len(plan) == 1 and self._errs(errors.pads):
            operation, number = plan[0]
            plan.append(("add" if operation == "multiply" else operation, number))
        elif len(plan) > 1 and self._errs(errors.skips, errors.prunes if self.crowd.prunes else [0.0, 0.0]):
            plan.pop(rng.randint(1, len(plan) - 1))
        return plan

    def work_out(self, first: int, plan: list[tuple[Operation, int]]) -> list[Step]:
        """Each step from the value the one before gave, right or wrong."""
        steps, current = [], first
        for operation, number in plan:
            if operation != "multiply" and self._errs(self.errors.wrong_sign):
                operation = "take" if operation == "add" else "add"
            value = min(max(calculate(current, operation, number).value, 0), LARGEST_WRITTEN)
            if self._errs(self.errors.slips):
                value = max(value + self.rng.choice(SLIPS), 0)
            steps.append(Step(current, operation, number, value))
            current = value
        return steps

    def _errs(self, *rates: list[float]) -> bool:
        rate = sum(familiar + unfamiliar * self.unfamiliar for familiar, unfamiliar in rates)
        return self.rng.random() < self.noise * rate


def _write(parts: list[str | dict[Literal["each"], str]], steps: list[Step], book: Book) -> str:
    ends = {"first": steps[0].left, "answer": steps[-1].value}
    written = []
    for part in parts:
        if isinstance(part, str):
            written.append(fill(part, ends))
        else:
            written += [fill(part["each"], _words_of(step, book)) for step in steps]
    return "".join(written)


def _words_of(step: Step, book: Book) -> dict[str, str | int]:
    left, operation, right, value = step
    undone = {"add": f"{value}-{right}={left}", "take": f"{value}+{right}={left}", "multiply": f"{right}*{left}={value}"}
    return {
        "a": left,
        "b": right,
        "value": value,
        "sign": SIGNS[operation],
        "verb": book.verbs[operation],
        "check": undone[operation],
    }
