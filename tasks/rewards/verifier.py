"""The verifier reward: is the final answer right? Text is compared, never executed."""

import re

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(rf"((?<![\w)%])-\$?|\$-)?({DIGITS})")  # behind a digit, a letter or a bracket a minus is a difference
FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
BELOW = re.compile(r"\s?/\s?(\d+)(?![\d.,]*\d)")
MIXED = re.compile(r" (\d+)/(\d+)(?!\d)")
MARKED = re.compile(r"####([^\n#]*)")
BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
SPELLINGS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " "})


def is_correct(completion: str, answer: str | None, verifier: str) -> bool | None:
    """None where there is no answer to check against.

    number   the final number equals the answer's, see final_number
    exact    the same text, apart from case and spacing
    """
    if answer is None:
        return None
    match verifier:
        case "number":
            found, expected = final_number(completion), final_number(answer)
            return found is not None and expected is not None and abs(found - expected) < 1e-6
        case "exact":
            return _normal(completion) == _normal(answer)
    raise ValueError(f"verifier: {verifier!r} is not one of number, exact")


def final_number(text: str) -> float | None:
    """The number behind the last `####` (the mark of GSM8K), else in the last \\boxed{}, else the last number of the text.

    1,234 is one number, 3/4 is 0.75, 1 1/2 is 1.5, and 25 % is 25, as GSM8K has it. Nothing else is worked out: of 5-3 the last
    number is 3.
    """
    text = plain(text)
    for pattern in (MARKED, BOXED):
        for marked in reversed(pattern.findall(text)):
            if numbers := numbers_of(marked.rpartition("=")[2]):
                return numbers[0]
    numbers = numbers_of(text)
    return numbers[-1] if numbers else None


def plain(text: str) -> str:
    """Signs of minus, and LaTeX's spellings of money, percent, separators and fractions, as on a keyboard."""
    for spelling, key in (("{,}", ","), ("\\!", ""), ("\\,", ""), ("\\$", "$"), ("\\%", "%")):
        text = text.replace(spelling, key)
    return FRACTION.sub(r"\1/\2", text.translate(SPELLINGS))


def numbers_of(text: str) -> list[float]:
    """From left to right; text: plain."""
    numbers, end = [], 0
    for match in NUMBER.finditer(text):
        if match.start() < end:  # the lower part of a fraction
            continue
        value, end = float(match[2].replace(",", "")), match.end()
        if mixed := MIXED.match(text, end):
            value, end = value + _divided(float(mixed[1]), mixed[2]), mixed.end()
        elif below := BELOW.match(text, end):
            value, end = _divided(value, below[1]), below.end()
        numbers.append(-value if match[1] else value)
    return numbers


def _divided(above: float, below: str) -> float:
    return above / float(below) if float(below) else float("nan")


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
