"""Equations in a text, and whether they hold. They are read by a grammar of their own; no text is executed.

sum = term, then any number of + - * / x × ÷ and a further term; term = number, number %, or ( sum )
"""

import re
from collections.abc import Sequence

from tasks.rewards.verifier import DIGITS, plain

REACH = 200  # characters before an equals sign that are looked at, which bounds the work on hostile text
LEFT = re.compile(r"[\d\s.,$%()+\-*/x×÷]*\Z")
VALUE = re.compile(rf"=\s*(-?)\s?\$?\s?(-?)({DIGITS})\s?(%?)")
TOKEN = re.compile(rf"({DIGITS})(\s?%)?|[-+*/x×÷()]|,")
OPERATORS = "-+*/x×÷"


def claims(text: str) -> list[bool]:
    """Whether each equation of the text holds, such as 3+4=7, $3 + $4 = $7, (3+4)*2=14 or 40 * 25% = 10."""
    text = plain(text)
    found = []
    for match in VALUE.finditer(text):
        start = max(0, match.start() - REACH)
        written = LEFT.search(text, start, match.start())
        assert written is not None  # it may be empty
        within_a_word = bool(re.match(r"\w", written[0])) and text[: written.start()][-1:].isalnum()
        if left := _tokens(written[0], within_a_word):
            found.append(_equal(left, match))
    return found


def _tokens(written: str, within_a_word: bool) -> list[str]:
    """The longest end that is a sum of at least two terms; empty if there is none. What begins within a word is left out."""
    tokens = [match[0] for match in TOKEN.finditer(written)]
    for start in range(int(within_a_word), len(tokens)):
        if _values(tokens[start:]) is not None and any(token in OPERATORS for token in tokens[start + 1 :]):
            return tokens[start:]
    return []


def _equal(left: list[str], match: re.Match[str]) -> bool:
    """A value with decimals may be rounded to them; a percentage may stand for its hundredth."""
    value = float(match[3].replace(",", "")) * (-1 if match[1] or match[2] else 1)
    decimals = len(match[3].partition(".")[2])
    near = 0.5 * 10**-decimals + 1e-9 if decimals else 1e-6
    units = (1.0, 0.01) if match[4] else (1.0,)
    return any(abs(found - unit * value) <= unit * near for found in _values(left) or () for unit in units)


def _values(tokens: Sequence[str]) -> tuple[float, float] | None:
    """By precedence and, as some write two steps in one ("3+4*2=14"), from left to right. None: not a sum."""
    values = []
    for precedence in (True, False):
        value, end = _sum(tokens, 0, precedence)
        if value is None or end != len(tokens):
            return None
        values.append(value)
    return values[0], values[1]


def _sum(tokens: Sequence[str], at: int, precedence: bool) -> tuple[float | None, int]:
    """(value, where it ends); the value is None if no sum begins at `at`."""
    negative = tokens[at : at + 1] == ["-"]
    term, at = _term(tokens, at + negative, precedence)
    if term is None:
        return None, at
    summands = [-term if negative else term]
    while at < len(tokens) and tokens[at] in OPERATORS:
        sign = tokens[at]
        term, at = _term(tokens, at + 1, precedence)
        if term is None:
            return None, at
        if sign in "+-":
            summands.append(term if sign == "+" else -term)
        else:
            whole = summands if precedence else [sum(summands)]
            whole[-1] = whole[-1] * term if sign not in "/÷" else whole[-1] / term if term else float("nan")
            summands = whole
    return sum(summands), at


def _term(tokens: Sequence[str], at: int, precedence: bool) -> tuple[float | None, int]:
    token = tokens[at] if at < len(tokens) else ""
    if token == "(":
        value, at = _sum(tokens, at + 1, precedence)
        return (value, at + 1) if tokens[at : at + 1] == [")"] else (None, at)
    if not token or token in OPERATORS or token in "),":
        return None, at
    number = token.rstrip("% ").replace(",", "")
    return float(number) / (100 if token.endswith("%") else 1), at + 1
