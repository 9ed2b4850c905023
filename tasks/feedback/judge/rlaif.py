"""Pairs from an AI judge: which completions it compares, and how far it can be trusted.

The questions are those a simulated annotator would be asked, so that both labels compare on equal questions; where nobody knows
the utilities, pairs of different samples by chance. What the judge prefers in the mean of both orders is chosen.

Metrics
  judge/questions        pairs put before the judge, each in both orders
  judge/no_verdict       of those, left out: an answer that says neither 1 nor 2, three times over
  judge/undecided        of those, left out: P = ½ exactly, as where a judge without probabilities goes by the order alone
  judge/position_bias    share of questions with a verdict in both orders in which the same position wins twice: there the order
                         decides, not what stands in it
  judge/first_position   mean P("1"): above ½ it likes what stands first
  judge/self_agreement   share of repeated questions (`repeat_rate` of all) with the same verdict when asked again, in the same
                         order, at temperature 1, and with a new rationale where there are rationales
  judge/gold_agreement   share of pairs whose chosen side has the higher utility, where utilities are known
  judge/prompt_tokens, judge/completion_tokens   that the answers took, whenever they were given
  judge/calls, judge/from_cache   answers asked for in this run, and found on disk; not in the stage's report
  …_low, …_high          of a share: its 95 % Wilson interval
"""

from collections.abc import Sequence
from itertools import combinations

from tasks.core import seeds
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.statistics import wilson
from tasks.feedback.annotator.choices import Candidate
from tasks.feedback.annotator.crowd import Crowd, different, pair, questions
from tasks.feedback.judge.judge import Judge, Judgement
from tasks.feedback.samples import Sampled
from tasks.rewards.judge.texts import Question

Asked = tuple[Row, str, Candidate, Candidate]  # a prompt, its split, and the two completions in the order they are shown first


def choose_questions(sampled: Sequence[Sampled], crowd: Crowd | None, pairs_per_prompt: int, seed: int) -> list[Asked]:
    """Which of the two is shown first is a matter of chance. crowd: None where the utilities are unknown."""
    asked: list[Asked] = []
    for row, split, texts in sampled:
        if crowd:
            found = questions(row, [crowd.truth(text, length, row) for text, length in texts], crowd)
        else:
            found = list(combinations(different([Candidate(text, 0.0) for text, _ in texts]), 2))
            seeds.stream(seed, "questions", row["id"]).shuffle(found)
        for number, (left, right) in enumerate(found[:pairs_per_prompt]):
            turn = seeds.stream(seed, "order", row["id"], number).random() < 0.5
            asked.append((row, split, right, left) if turn else (row, split, left, right))
    if not asked:
        raise InputError("no prompt has two different samples: nothing to ask; raise samples_per_prompt or the temperature")
    return asked


def judge_pairs(
    asked: Sequence[Asked], judge: Judge, is_known: bool, repeat_rate: float, seed: int, what: str
) -> tuple[list[Row], dict[str, float], list[Row]]:
    """(pairs, figures, judgements to look at). is_known: whether the utilities are."""
    put = [Question(f"{row['id']}-{n}", row["query"], a.text, b.text) for n, (row, _, a, b) in enumerate(asked)]
    judged = judge.judge(put, what)
    pairs: list[Row] = []
    for (row, split, first, second), judgement in zip(asked, judged, strict=True):
        if judgement.preference is not None and judgement.preference != 0.5:
            chosen, rejected = (first, second) if judgement.preference > 0.5 else (second, first)
            made = pair(row, chosen, rejected, split, len(pairs))
            pairs.append(made if is_known else made | {"gap": None})
    if not pairs:
        raise InputError("the judge decided no question: in every one its verdict went by the order alone, or was missing")
    decided = [n for n, judgement in enumerate(judged) if judgement.shown is not None]
    again = [n for n in decided if seeds.stream(seed, "repeat", n).random() < repeat_rate]
    verdicts = judge.judge_again([put[n] for n in again])
    same = [(judged[n].shown or 0.0) > 0.5 for n in again]
    agrees = [(verdict == 1.0) == first for verdict, first in zip(verdicts, same, strict=True) if verdict is not None]
    figures = measure(judged) | share("self_agreement", agrees)
    if is_known:
        figures |= share("gold_agreement", [row["gap"] > 0 for row in pairs if row["gap"]])
    figures |= {"judge/prompt_tokens": judge.prompt_tokens, "judge/completion_tokens": judge.completion_tokens}
    return pairs, figures, [_shown(question, each) for question, each in zip(put, judged, strict=True)]


def measure(judged: Sequence[Judgement]) -> dict[str, float]:
    """Counts, and what the order did."""
    both = [(each.shown, each.turned) for each in judged if each.shown is not None and each.turned is not None]
    inclined = [(a > 0.5) == (b > 0.5) for a, b in both if 0.5 not in (a, b)]
    return {
        "judge/questions": len(judged),
        "judge/no_verdict": len(judged) - len(both),
        "judge/undecided": sum(each.preference == 0.5 for each in judged),
        "judge/first_position": sum(a + b for a, b in both) / (2 * len(both)) if both else 0.5,
        **share("position_bias", inclined),
    }


def share(name: str, found: Sequence[bool]) -> dict[str, float]:
    """With its interval; nothing of nothing."""
    if not found:
        return {}
    share, low, high = wilson(sum(found), len(found))
    return {f"judge/{name}": share, f"judge/{name}_low": low, f"judge/{name}_high": high}


def _shown(question: Question, judgement: Judgement) -> Row:
    return {
        "id": question.id,
        "query": question.query,
        "first": question.first,
        "second": question.second,
        "shown": None if judgement.shown is None else round(judgement.shown, 6),
        "turned": None if judgement.turned is None else round(judgement.turned, 6),
        "rationale": judgement.rationale,
    }
