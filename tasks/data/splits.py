"""Which rows are for training and which are held out: decided by the text itself.

A hash of the normalised query puts the same question on the same side in every table, in every file and after every reordering.
"""

import hashlib
import re
import unicodedata
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "validation", "test"]

VALIDATION_SHARE = 0.05
TEST_SHARE = 0.10


def words(text: str) -> list[str]:
    """Words, numbers and arithmetic signs in lower case: what is left of a text when layout and punctuation do not count.

    A text of nothing else (an emoji, "?!") is one word.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"\w+|[-+*/=<>%^]", text) or text.split()


def normalise(text: str) -> str:
    return " ".join(words(text))


def split_of(query: str, given: Literal["train", "test"] | None = None, test_share: float = TEST_SHARE) -> Split:
    """The split of a query. A file that is one split as released keeps it; a train file still yields validation rows."""
    if given == "test":
        return "test"
    share = int.from_bytes(hashlib.sha256(normalise(query).encode()).digest()[:8], "big") / 2**64
    if share < VALIDATION_SHARE:
        return "validation"
    return "test" if given is None and share < VALIDATION_SHARE + test_share else "train"
