"""The tables of the embedded default: arithmetic stories, solved by the crowds, none of the held-out ones in training text."""

import itertools
import random
from collections.abc import Iterable, Iterator

from pydantic import PositiveInt

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.seeds import stream
from tasks.data.arithmetic import BOOK, Book, Problem, make_problem, make_sums, pick
from tasks.data.contamination import HeldOut
from tasks.data.crowds import kind_weights, solve


class PromptCounts(Config):
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class GenerateConfig(Config):
    """How many rows of each table."""

    corpus: PositiveInt
    demonstrations: PositiveInt
    prompts: PromptCounts


class Generator:
    """Every table draws from its own stream; problems that resemble a held-out one are drawn again."""

    def __init__(self, instructions: Iterable[str], default: str, seed: int):
        self.book = Book.load(BOOK)
        self.instructions, self.default, self.seed = list(instructions), default, seed
        self.held_out = HeldOut([])
        self.asked: set[str] = set()
        without = [name for name in self.instructions if name not in self.book.crowds]
        if without:
            raise InputError(f"{BOOK}: instruction `{without[0]}` has no crowd; add `arithmetic.crowds.{without[0]}`")

    def prompts(self, counts: dict[str, int]) -> list[Row]:
        """Test first, then validation, then train: each avoids what is held out before it. Kinds in equal parts."""
        held_out: list[Row] = []
        for split in ("test", "validation", "train"):
            rng = stream(self.seed, "prompts", split)
            kinds = itertools.islice(itertools.cycle(self.book.kinds), counts[split])
            new = [self._prompt(kind, rng) for kind in kinds]
            rows = [{"id": f"{split}-{index}", **row, "split": split} for index, row in enumerate(new)]
            if split == "train":
                break
            held_out += rows
            self.held_out = HeldOut([row["query"] for row in held_out])
        return rows + held_out

    def demonstrations(self, count: int) -> list[Row]:
        """After prompts(). `right` says whether the answer is: for the record, it is no column of the table."""
        rng = stream(self.seed, "demonstrations")
        return [self._demonstration(f"demonstration-{index}", rng) for index in range(count)]

    def corpus(self, count: int) -> list[Row]:
        """After prompts()."""
        rng = stream(self.seed, "corpus")
        return [{"text": text} for text in itertools.islice(self._texts(rng), count)]

    def _prompt(self, kind: str, rng: random.Random) -> Row:
        problem = self._problem(kind, rng)
        while problem.text in self.asked:  # one prompt, one row: no split of the prompts can then share any
            problem = self._problem(kind, rng)
        self.asked.add(problem.text)
        colleague = (
            solve(self.book, problem, self.default, rng, self.book.mistake_noise) for _ in range(self.book.mistake_tries)
        )
        return {
            "query": problem.text,
            "answer": str(problem.answer),
            "solution": solve(self.book, problem, self.default, rng, noise=0.0).text,
            "mistake": next((attempt.text for attempt in colleague if attempt.answer != problem.answer), None),
            "kind": problem.kind,
        }

    def _demonstration(self, name: str, rng: random.Random) -> Row:
        crowd = pick({name: self.book.crowds[name].weight for name in self.instructions}, rng)
        problem = self._problem(pick(kind_weights(self.book, crowd), rng), rng)
        text, answer = solve(self.book, problem, crowd, rng)
        right = answer == problem.answer
        return {"id": name, "query": problem.text, "instruction_id": crowd, "completion": text, "right": right}

    def _texts(self, rng: random.Random) -> Iterator[str]:
        corpus, kinds = self.book.corpus, list(self.book.kinds)
        while True:
            if rng.random() < corpus.drills:
                yield make_sums(self.book, rng)
            else:
                problem = self._problem(rng.choice(kinds), rng)
                yield f"{problem.text} {solve(self.book, problem, pick(corpus.formats, rng), rng, corpus.noise).text}"

    def _problem(self, kind: str, rng: random.Random) -> Problem:
        while True:
            problem = make_problem(self.book, kind, rng)
            if not self.held_out.has(problem.text):
                return problem
