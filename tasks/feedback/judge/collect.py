"""Feedback of an AI judge on samples of the SFT model: a local model, or one at an OpenAI-compatible endpoint."""

from pathlib import Path

from tasks.core.files import digest
from tasks.core.prompt_registry import register_prompts
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.annotator.crowd import Truth, make_crowd
from tasks.feedback.collected import Collected, publish
from tasks.feedback.judge.cache import answers_folder
from tasks.feedback.judge.endpoint import Endpoint
from tasks.feedback.judge.judge import Backend, Judge
from tasks.feedback.judge.local import LocalJudge
from tasks.feedback.judge.rlaif import choose_questions, judge_pairs
from tasks.feedback.samples import load_questions, sample_completions
from tasks.feedback.settings import CollectPreferencesConfig
from tasks.models.language import open_model
from tasks.models.text import TaskConfig
from tasks.rewards.functions import FunctionsConfig
from tasks.rewards.judge.settings import JudgeConfig
from tasks.rewards.judge.texts import JudgeTextsConfig
from tasks.rewards.judge.verdicts import open_judge


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
    task, sft = stage.params(TaskConfig), stage.dep("models/sft")
    texts = JudgeTextsConfig.load(stage.dep(config.judge.templates))
    prompts = load_questions(config, stage)
    truth = Truth(config, stage.params(FunctionsConfig), task.verifier)
    policy, tokenizer = open_model(stage, sft)
    judge = make_judge(config.judge, texts, stage)
    is_known = "verifier" not in config.utility or all(row["answer"] is not None for row in prompts)
    crowd = make_crowd(config, truth, tokenizer, stage.seed) if is_known else None
    sampled, unreadable = sample_completions(prompts, policy, tokenizer, task, config, stage)
    asked = choose_questions(sampled, crowd, config.pairs_per_prompt, stage.seed)
    pairs, figures, judgements = judge_pairs(
        asked, judge, is_known, config.judge.repeat_rate, stage.seed, f"{stage.name}: judge"
    )
    costs: dict[str, float] = {"judge/calls": judge.calls, "judge/from_cache": judge.from_cache}
    figures |= {"unreadable_samples": unreadable}
    publish(Collected(pairs, [], figures, costs, {"judgements": judgements}), stage)
    template = {Path(config.judge.templates).stem: texts.template(bool(config.judge.rationale_tokens))}
    register_prompts(stage.tracker.client, stage.tracker.run_id, "judge", template)


def make_judge(config: JudgeConfig, texts: JudgeTextsConfig, stage: Stage) -> Judge:
    backend: Backend
    if config.base_url is not None:
        backend = Endpoint(config, config.base_url)
    else:
        model, tokenizer, source = open_judge(config, stage)
        pin = digest(Path(source)) if Path(source).is_dir() else f"{source}@{config.model_revision}"
        backend = LocalJudge(model, tokenizer, f"{pin}, seed {stage.seed}, device {stage.device}", stage.seed)
    return Judge(texts, backend, answers_folder(), config.rationale_tokens)


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
