"""What a word problem shows at its surface: its numbers, its length, the words that cue an operation.

Mean hidden states blur exactly this: how many numbers there are, how large, whether one is a fraction.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUMBER = re.compile(r"\d[\d,]*\.?\d*")
CUES = [
    "more", "less", "fewer", "left", "total", "altogether", "each", "every", "times", "twice", "half",
    "difference", "than", "how", "remaining", "sum", "per", "cost", "buy", "gave", "rest",
]  # fmt: skip


def surface(texts: Sequence[str]) -> NDArray[np.float64]:
    """(texts, 16 + cues)"""
    return np.array([_features(text) for text in texts], dtype=np.float64)


def mask_numbers(text: str) -> str:
    """The story without its numbers, in lower case: "Ann has # apples"."""
    return re.sub(r"\d[\d,.]*", "#", text.lower())


def last_sentence(text: str) -> int:
    """Where the last sentence begins, which is what a word problem asks."""
    found = [match.end() for match in re.finditer(r"[.!;](?=\s)", text.rstrip()[:-1])]
    return found[-1] if found else 0


def _features(text: str) -> list[float]:
    numbers = [float(match.replace(",", "")) for match in NUMBER.findall(text)]
    sizes = [float(np.log1p(number)) for number in numbers] or [0.0]
    words = re.findall(r"[a-z]+", text.lower())
    known = set(words)
    shape = [
        len(numbers), len(words), len(text), text.count(".") + text.count("?"),
        max(sizes), min(sizes), sum(sizes) / len(sizes),
        any(number != int(number) for number in numbers), "%" in text, "$" in text, "/" in text,
        sum(map(len, words)) / max(1, len(words)), len(known) / max(1, len(words)),
        len(numbers) - len(set(numbers)), sum(number >= 100 for number in numbers),
        text[last_sentence(text) :].count(" "),
    ]  # fmt: skip
    return [float(value) for value in shape] + [float(cue in known) for cue in CUES]
