"""Arithmetic stories whose answer is known, made from the sentences in data/arithmetic.yaml.

A story starts with a number, or with groups of things (a multiplication), and goes on for one to three steps; the kind "extra"
holds a number that plays no part. Every choice is drawn from the stream that is passed in.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from tasks.core.config import Config
from tasks.data.templates import fill

BOOK = Path("data/arithmetic.yaml")

Operation: TypeAlias = Literal["add", "take", "multiply"]
SIGNS: dict[Operation, str] = {"add": "+", "take": "-", "multiply": "*"}


class Kind(Config):
    steps: list[int]
    irrelevant: bool


class Crowd(Config):
    habit: dict[str, float]
    writes: list[str | dict[Literal["each"], str]]
    weight: float = 1.0
    pads: bool = False
    prunes: bool = False


class Errors(Config):
    """Rates: [for a familiar kind, added for a wholly unfamiliar one]."""

    uses_irrelevant: list[float]
    pads: list[float]
    skips: list[float]
    prunes: list[float]
    slips: list[float]
    wrong_sign: list[float]


class Corpus(Config):
    drills: float
    sums: int
    largest: dict[str, int]
    formats: dict[str, float]
    noise: float


class Book(Config):
    """data/arithmetic.yaml; what each entry means is said there."""

    namespace = "arithmetic"

    names: list[str]
    things: list[str]
    largest: int
    largest_group: int
    kinds: dict[str, Kind]
    sentences: dict[str, list[str]]
    groups_share: float
    operations: dict[str, float]
    operations_when_large: dict[str, float]
    large: int
    crowds: dict[str, Crowd]
    verbs: dict[Operation, str]
    errors: Errors
    skew: float
    corpus: Corpus
    mistake_noise: float
    mistake_tries: int


class Step(NamedTuple):
    """left (operation) right = value"""

    left: int
    operation: Operation
    right: int
    value: int


@dataclass(frozen=True, slots=True)
class Problem:
    text: str
    kind: str
    steps: list[Step]
    irrelevant: int | None

    @property
    def answer(self) -> int:
        return self.steps[-1].value


def calculate(left: int, operation: Operation, right: int) -> Step:
    match operation:
        case "add":
            value = left + right
        case "take":
            value = left - right
        case "multiply":
            value = left * right
    return Step(left, operation, right, value)


def make_problem(book: Book, kind: str, rng: random.Random) -> Problem:
    """A story of this kind; no number in it or on the way to the answer is negative."""
    name, friend = rng.sample(book.names, 2)
    people_and_things = {"name": name, "friend": friend, "thing": rng.choice(book.things)}

    def say(sentence: str, **numbers: int) -> str:
        return fill(rng.choice(book.sentences[sentence]), people_and_things | numbers)

    steps: list[Step] = []
    if rng.random() < book.groups_share:
        steps.append(calculate(rng.randint(2, book.largest_group), "multiply", rng.randint(2, book.largest_group)))
        told, current = [say("groups", a=steps[0].left, b=steps[0].right)], steps[0].value
    else:
        current = rng.randint(3, book.largest)
        told = [say("start", a=current)]
    for _ in range(rng.choice(book.kinds[kind].steps) - len(steps)):
        step, sentence = _next_step(book, current, rng)
        told.append(say(sentence, b=step.right))
        steps.append(step)
        current = step.value

    irrelevant = rng.randint(2, book.largest) if book.kinds[kind].irrelevant else None
    if irrelevant is not None:
        told.insert(rng.randint(0, len(told)), say("irrelevant", n=irrelevant))
    return Problem(" ".join([*told, say("question")]), kind, steps, irrelevant)


def _next_step(book: Book, current: int, rng: random.Random) -> tuple[Step, str]:
    """A step from the running number, and the kind of sentence that tells it."""
    sentence = pick(book.operations if current < book.large else book.operations_when_large, rng)
    if sentence == "double":
        return calculate(current, "multiply", 2), sentence
    if sentence == "take" and current > 2:
        return calculate(current, "take", rng.randint(2, min(book.largest, current - 1))), sentence
    return calculate(current, "add", rng.randint(2, book.largest)), "add"


def make_sums(book: Book, rng: random.Random) -> str:
    """Bare sums for the base model to practise: "3+4=7. 12*2=24. …"."""
    largest = book.corpus.largest
    sums = []
    for _ in range(book.corpus.sums):
        match rng.choice(["add", "take", "add", "take", "double", "times"]):
            case "add":
                step = calculate(rng.randint(1, largest["add"]), "add", rng.randint(1, book.largest))
            case "take":
                left = rng.randint(3, largest["take"])
                step = calculate(left, "take", rng.randint(1, min(book.largest, left)))
            case "double":
                step = calculate(rng.randint(2, largest["double"]), "multiply", 2)
            case _:
                step = calculate(rng.randint(2, largest["times"]), "multiply", rng.randint(2, largest["times"]))
        sums.append(f"{step.left}{SIGNS[step.operation]}{step.right}={step.value}.")
    return " ".join(sums)


def pick(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
