"""Feedback of simulated annotators on samples of the SFT model; tasks/feedback/annotator/crowd.py says what they are asked."""

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.annotator.crowd import Truth, agreement, compare, correct, judge_each, make_crowd
from tasks.feedback.collected import Collected, publish
from tasks.feedback.implied import implied_pairs
from tasks.feedback.samples import load_questions, refuse_unanswered, sample_completions
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.language import open_model
from tasks.models.text import TaskConfig
from tasks.rewards.functions import FunctionsConfig


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
    task = stage.params(TaskConfig)
    prompts = load_questions(config, stage)
    refuse_unanswered(prompts, config)
    truth = Truth(config, stage.params(FunctionsConfig), task.verifier)
    policy, tokenizer = open_model(stage, stage.dep("models/sft"))
    crowd = make_crowd(config, truth, tokenizer, stage.seed)
    sampled, unreadable = sample_completions(prompts, policy, tokenizer, task, config, stage)
    shown = [(row, split, [truth(text, length, row) for text, length in texts]) for row, split, texts in sampled]
    figures = {"unreadable_samples": unreadable, "annotator_agreement": agreement(shown, crowd)}
    judged: list[Row] = []
    match config.kind:
        case "pairwise":
            pairs = compare(shown, crowd)
        case "correction":
            pairs = correct(shown, crowd)
        case _:
            judged = judge_each(shown, crowd)
            pairs = implied_pairs(judged)
    if not pairs:
        raise InputError("no two samples differ in utility: nothing to ask; raise samples_per_prompt or the temperature")
    publish(Collected(pairs, judged, figures), stage)


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
