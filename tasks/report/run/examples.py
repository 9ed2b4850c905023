"""Completions to read: where the method helps, where it hurts, chosen by rule and not by taste."""

from collections.abc import Sequence
from html import escape

from tasks.core.files import Row
from tasks.report.run.recorded import Recorded
from tasks.report.tables import name_of
from tasks.report.wording import data

SHOWN = 3  # of each kind
SIDE_BY_SIDE = 5  # different completions; further ones are folded
Answers = dict[str, Row]  # model -> its row of completions.parquet, for one prompt


def completions(recorded: Recorded) -> str:
    """SFT and each policy (of several seeds the first) side by side on some test prompts."""
    models = ["sft", *(policies[0].model for policies in recorded.algorithms.values())]
    by_prompt: dict[str, Answers] = {}
    for each in recorded.completions:
        if each["model"] in models:
            by_prompt.setdefault(each["id"], {})[each["model"]] = each
    parts = []
    for heading, found in kinds(list(by_prompt.values())):
        parts.append(f"<h3>{heading}</h3>" if found else "")
        parts += [_card(answers, models, list(recorded.algorithms)) for answers in found[:SHOWN]]
    return "".join(parts)


def kinds(prompts: Sequence[Answers]) -> list[tuple[str, list[Answers]]]:
    """The prompts that tell most first; where nothing can be checked, those where the score changes most."""
    if any(each["correct"] is None for answers in prompts for each in answers.values()):
        ordered = sorted(prompts, key=_score_gain, reverse=True)
        return [("The score rises most", ordered), ("The score falls most", ordered[::-1])]
    gained = [answers for answers in prompts if not answers["sft"]["correct"] and _num_right(answers)]
    broken = [answers for answers in prompts if answers["sft"]["correct"] and _num_right(answers) < len(answers)]
    never = [answers for answers in prompts if not _num_right(answers)]
    gained.sort(key=_num_right, reverse=True)
    broken.sort(key=_num_right)
    total = len(prompts)
    return [
        (f"SFT is wrong, a policy is right: {len(gained)} of {total} prompts", gained),
        (f"SFT is right, a policy is wrong: {len(broken)} of {total} prompts", broken),
        (f"Everyone is wrong: {len(never)} of {total} prompts", never),
    ]


def _num_right(answers: Answers) -> int:
    return sum(each["correct"] for each in answers.values())


def _score_gain(answers: Answers) -> float:
    policies = [each["score"] for model, each in answers.items() if model != "sft"]
    return sum(policies) / len(policies) - answers["sft"]["score"] if policies else 0.0


def _card(answers: Answers, models: Sequence[str], algorithms: Sequence[str]) -> str:
    asked = answers["sft"]
    said: dict[str, list[str]] = {}  # completion -> who says it
    for index, model in enumerate(models):
        name = '<span class="name">sft</span>' if model == "sft" else name_of(algorithms[index - 1], index - 1)
        said.setdefault(answers[model]["completion"], []).append(name)
    first = {each["completion"]: each for model in reversed(models) for each in [answers[model]]}
    cells = [
        f"<div>{', '.join(names)} {_mark(first[text]['correct'])}<small>score {data(first[text]['score'], 'score')}</small>"
        f'<p class="data">{escape(text)}</p></div>'
        for text, names in said.items()
    ]
    answer = f"<small>right answer: {escape(asked['answer'])}</small>" if asked.get("answer") else ""
    prompt = f'<p class="data">{escape(asked["prompt"].strip())}</p>'
    shown, folded = (f'<div class="answers">{"".join(part)}</div>' for part in (cells[:SIDE_BY_SIDE], cells[SIDE_BY_SIDE:]))
    if len(cells) > SIDE_BY_SIDE:
        shown += f"<details><summary>Further completions: {len(cells) - SIDE_BY_SIDE}</summary>{folded}</details>"
    return f"<article>{prompt}{answer}{shown}</article>"


def _mark(correct: bool | None) -> str:
    if correct is None:
        return ""
    return '<span class="right" title="right">✓</span>' if correct else '<span class="wrong" title="wrong">✗</span>'
