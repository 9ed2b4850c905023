"""Tables that expectations can judge where raw columns do not say it: overlap with what is held out, pairs, balance, tokens.

These functions only measure. What is too much is written in data/expectations/*.yaml.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from tasks.core.files import Row
from tasks.data import tokenized
from tasks.data.contamination import HeldOut, shared_grams
from tasks.models.text import TaskConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tables: TypeAlias = dict[str, list[Row]]

ENOUGH = 20  # a share of fewer says nothing


def measure_data(tables: Tables, tokenizer: "PreTrainedTokenizerBase", task: TaskConfig) -> tuple[Tables, list[Row]]:
    """The measured tables by name, for the prepared tables; and the first demonstrations as a model sees them."""
    prompts, demonstrations = tables["prompts"], tables["demonstrations"]
    measured = {
        "balance": balance(prompts, tables["preferences"]),
        "overlap_corpus": overlap(prompts, "corpus", [row["text"] for row in tables["corpus"]]),
        "overlap_demonstrations": overlap(prompts, "demonstrations", [row["query"] for row in demonstrations]),
        "overlap_prompts": overlap(prompts, "prompts", _trained_on(prompts, "query")),
        "tokens_demonstrations": tokenized.measure(demonstrations, ("completion",), tokenizer, task),
        "tokens_prompts": tokenized.measure(prompts, ("solution", "mistake"), tokenizer, task),
    }
    examples = tokenized.examples(demonstrations, "completion", tokenizer)
    return measured | _of_pairs(tables["preferences"], prompts, tokenizer, task), examples


def measure_preferences(
    preferences: Sequence[Row],
    feedback: Sequence[Row],
    prompts: Sequence[Row],
    tokenizer: "PreTrainedTokenizerBase",
    task: TaskConfig,
) -> tuple[Tables, list[Row]]:
    """The same for pairs and for the feedback that implies them."""
    measured: Tables = {
        "balance": balance([], preferences),
        "questions": questions(feedback),
        "ratings": [row for row in feedback if row["kind"] == "rating"],
        "thumbs": [row for row in feedback if row["kind"] == "thumbs"],
        "overlap_feedback": overlap(prompts, "feedback", _trained_on(feedback), "prompt"),
        "tokens_feedback": tokenized.measure(feedback, ("completion",), tokenizer, task),
    }
    examples = tokenized.examples(preferences, "chosen", tokenizer)
    of_pairs = _of_pairs(preferences, prompts, tokenizer, task)
    asked = {row["prompt"] for row in feedback}
    for row, pair in zip(of_pairs["pairs"], preferences, strict=True):
        row["asked"] = not asked or pair["prompt"] in asked
    return measured | of_pairs, examples


def _of_pairs(
    preferences: Sequence[Row], prompts: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", task: TaskConfig
) -> Tables:
    return {
        "pairs": pairs(preferences),
        "overlap_preferences": overlap(prompts, "preferences", _trained_on(preferences), "prompt"),
        "special_tokens": tokenized.special_tokens(tokenizer),
        "tokens_preferences": tokenized.measure_pairs(preferences, tokenizer, task),
    }


def _trained_on(rows: Sequence[Row], column: str = "prompt") -> list[str]:
    """One text per row: nothing, which resembles nothing, where the row itself is held out."""
    return [row[column] if row["split"] == "train" else "" for row in rows]


def overlap(prompts: Sequence[Row], table: str, texts: Sequence[str], column: str = "query") -> list[Row]:
    """One row per held-out prompt: {row, id, split, same, same_where, near, near_where}; row: its index in the table prompts.

    same: whether a training text has the same words. near: the largest share of the query's 5-grams in one text, 0 if small.
    column: of the prompts, what texts would repeat as a whole: pairs hold prompts, the other tables queries. Near is always
    judged on the query, and without what many queries share, else an instruction or a preamble would make them alike.
    """
    held_out = [(index, row) for index, row in enumerate(prompts) if row["split"] != "train"]
    queries = HeldOut([row["query"] for _, row in held_out], shared_grams(row["query"] for row in prompts))
    whole = HeldOut([row[column] for _, row in held_out])
    unseen = {"same": False, "same_where": None, "near": 0.0, "near_where": None}
    found = [{"row": index, "id": row["id"], "split": row["split"], **unseen} for index, row in held_out]
    for index, text in enumerate(texts):
        for position in whole.same(text):
            found[position] |= {"same": True, "same_where": found[position]["same_where"] or f"in {table} row {index}"}
        for position, share in queries.near(text):
            if share > found[position]["near"]:
                found[position] |= {"near": share, "near_where": f"{share:.0%} in {table} row {index}"}
    return found


def pairs(preferences: Sequence[Row]) -> list[Row]:
    """One row per pair {id, differ, same, same_where}.

    differ: whether its sides do. same: whether a held-out pair has the prompt of a training pair. Pairs are held out only to
    measure the reward model, so nothing but the same prompt counts here.
    """
    trained = {row["prompt"]: index for index, row in reversed(list(enumerate(preferences))) if row["split"] == "train"}
    found = [trained.get(row["prompt"]) if row["split"] != "train" else None for row in preferences]
    return [
        {
            "id": row["id"],
            "differ": row["chosen"].strip() != row["rejected"].strip(),
            "same": index is not None,
            "same_where": None if index is None else f"preferences row {index}",
        }
        for row, index in zip(preferences, found, strict=True)
    ]


def questions(feedback: Sequence[Row]) -> list[Row]:
    """One row per question of feedback.parquet {row, id, prompts, kinds, annotators, splits, gap, gap_where, same}; row: its
    first row in the table.

    prompts, kinds, annotators, splits: how many different ones its rows name. gap: whether the ranks of a ranking leave one
    out; completions that share a rank may count as one (1, 1, 2) or as many (1, 1, 3). same: whether a held-out question has
    the prompt of a training question.
    """
    asked: defaultdict[str, list[tuple[int, Row]]] = defaultdict(list)
    for index, row in enumerate(feedback):
        asked[row["id"]].append((index, row))
    trained = {row["prompt"] for row in feedback if row["split"] == "train"}
    found = []
    for id, entries in asked.items():
        rows = [row for _, row in entries]
        ranks = sorted(row["value"] for row in rows if row["kind"] == "ranking")
        found.append(
            {"row": entries[0][0], "id": id}
            | {f"{name}s": len({row[name] for row in rows}) for name in ("prompt", "kind", "annotator", "split")}
            | {"gap": _has_gap(ranks), "gap_where": ", ".join(f"{rank:g}" for rank in ranks) or None}
            | {"same": any(row["split"] != "train" and row["prompt"] in trained for row in rows)}
        )
    return found


def _has_gap(ranks: Sequence[float]) -> bool:
    """ranks: in order."""
    places = list(enumerate(zip((0.0, *ranks), ranks, strict=False), start=1))
    return any(rank not in ((1.0,) if place == 1 else (last, last + 1, place)) for place, (last, rank) in places)


def disagreements(preferences: Sequence[Row], feedback: Sequence[Row]) -> dict[str, float]:
    """How feedback contradicts itself: figures, not faults.

    repeated_pairs: different pairs of texts that were put more than once; contradicted_pairs: of those, answered both ways.
    tied_questions: with two completions that share a value. repeated_judgements: completions that one annotator was shown in
    several questions about the same prompt; changed_judgements: of those, rated or thumbed differently.
    """
    answers: defaultdict[tuple[str, frozenset[str]], list[str]] = defaultdict(list)
    for row in preferences:
        answers[row["prompt"], frozenset((row["chosen"], row["rejected"]))].append(row["chosen"])
    repeated = [chosen for chosen in answers.values() if len(chosen) > 1]
    values: defaultdict[str, list[float]] = defaultdict(list)
    said: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in feedback:
        values[row["id"]].append(row["value"])
        if row["kind"] != "ranking":
            said[row["annotator"], row["kind"], row["prompt"], row["completion"]].append(row["value"])
    again = [each for each in said.values() if len(each) > 1]
    return {
        "repeated_pairs": len(repeated),
        "contradicted_pairs": sum(len(set(chosen)) > 1 for chosen in repeated),
        "tied_questions": sum(len(set(each)) < len(each) for each in values.values()),
        "repeated_judgements": len(again),
        "changed_judgements": sum(len(set(each)) > 1 for each in again),
    }


def balance(prompts: Sequence[Row], preferences: Sequence[Row]) -> list[Row]:
    """One row of shares; null where there are fewer than 20 to count.

    largest_kind: the most common kind of prompt. largest_answer: the most common answer; a constant would be right so often.
    chosen_longer: of the pairs of unequal length, those whose chosen side is longer; near 0 or 1, length tells the label.
    """
    lengths = [(len(row["chosen"]), len(row["rejected"])) for row in preferences]
    unequal = [chosen > rejected for chosen, rejected in lengths if chosen != rejected]
    return [
        {
            "largest_kind": _largest(row["kind"] for row in prompts),
            "largest_answer": _largest(row["answer"] for row in prompts),
            "chosen_longer": sum(unequal) / len(unequal) if len(unequal) >= ENOUGH else None,
        }
    ]


def _largest(values: Iterable[str | None]) -> float | None:
    counts = Counter(value for value in values if value is not None)
    return max(counts.values()) / counts.total() if counts.total() >= ENOUGH else None
