"""The verifier reward: is the final answer right? Text is compared, never executed."""

import re

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MARKED = re.compile(r"####\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?)")


def is_correct(completion: str, answer: str | None, verifier: str) -> bool | None:
    """None where there is no answer to check against.

    number   the final number equals the answer's: the one after the last `####` (the mark of GSM8K), else the last number
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
    """18.0 for "… #### 18" and for "A: 18"; thousands separators are ignored."""
    numbers = MARKED.findall(text) or NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
