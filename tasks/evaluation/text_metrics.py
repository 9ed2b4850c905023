"""How alike texts are: greedy completions and the `solution` of their prompts, and the samples of a prompt among themselves.

Figures of each model, from 0 to 1, each with its 95 % bootstrap interval over prompts (_low, _high)
  bleu, chrf                  of all completions together, by sacrebleu (Papineni et al. 2002; Popović 2015; Post 2018)
  rouge_1, rouge_2, rouge_l   mean F1, by rouge_score, which reads a to z and digits alone (Lin 2004)
  self_bleu                   mean BLEU of each sample against the others of its prompt (Zhu et al. 2018): low means variety
Prompts without a solution count for self_bleu alone.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, TypeAlias

from tasks.core.errors import InputError
from tasks.core.files import read_table
from tasks.core.stage import Stage
from tasks.core.statistics import paired_bootstrap
from tasks.evaluation.answers import Answers
from tasks.training.prompts import Prompt

TextMetric: TypeAlias = Literal["bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "self_bleu"]


def references_of(prompts: Sequence[Prompt], metrics: Sequence[TextMetric], stage: Stage) -> list[str | None]:
    """The solution of each prompt. Raises InputError if there is none at all to compare with."""
    solutions = {row["id"]: row["solution"] for row in read_table(stage.dep("data/prepared/prompts.parquet"))}
    references = [solutions[prompt.id] for prompt in prompts]
    asked = [metric for metric in metrics if metric != "self_bleu"]
    if asked and not any(references):
        raise InputError(
            f"no test prompt has a `solution` to compare with; take {', '.join(asked)} out of `evaluate.text_metrics`"
        )
    return references


def text_figures(
    metrics: Sequence[TextMetric], answers: Answers, references: Sequence[str | None], bootstrap_samples: int, seed: int
) -> dict[str, float]:
    """Of one model."""
    pairs = [(text, known) for text, known in zip(answers.greedy, references, strict=True) if known]
    figures: dict[str, float] = {}
    for metric in metrics:
        if metric in ("bleu", "chrf"):
            found = of_all(metric, pairs, bootstrap_samples)
        else:
            each = self_bleu(answers.sampled) if metric == "self_bleu" else rouge(metric, pairs)
            found = paired_bootstrap(each, bootstrap_samples, seed)
        figures |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), found, strict=True))
    return figures


def of_all(metric: TextMetric, pairs: Sequence[tuple[str, str]], bootstrap_samples: int) -> tuple[float, float, float]:
    """Of the corpus, with its interval around the mean of the bootstrap."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    texts, known = zip(*pairs, strict=True)
    score = (BLEU if metric == "bleu" else CHRF)().corpus_score(texts, [known], n_bootstrap=bootstrap_samples)
    mean, half = score._mean, score._ci  # sacrebleu only prints them
    return score.score / 100, (mean - half) / 100, (mean + half) / 100


def rouge(metric: TextMetric, pairs: Sequence[tuple[str, str]]) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    name = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}[metric]
    scorer = RougeScorer([name])
    return [scorer.score(known, text)[name].fmeasure for text, known in pairs]


def self_bleu(sampled: Sequence[Sequence[str]]) -> list[float]:
    """Of each prompt."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)  # of a sentence: no text need hold a 4-gram
    return [
        fmean(bleu.sentence_score(text, [*texts[:place], *texts[place + 1 :]]).score / 100 for place, text in enumerate(texts))
        for texts in sampled
    ]
