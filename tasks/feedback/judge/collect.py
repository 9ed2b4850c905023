"""Feedback of an AI judge on samples of the SFT model: a local model, or one at an OpenAI-compatible endpoint."""

from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.feedback.annotator.crowd import Truth, make_crowd
from tasks.feedback.collected import Collected, publish
from tasks.feedback.judge.cache import answers_folder
from tasks.feedback.judge.endpoint import Endpoint
from tasks.feedback.judge.judge import Backend, Judge
from tasks.feedback.judge.local import LocalJudge
from tasks.feedback.judge.rlaif import choose_questions, judge_pairs
from tasks.feedback.judge.texts import JudgeTextsConfig
from tasks.feedback.samples import load_questions, sample_completions
from tasks.feedback.settings import CollectPreferencesConfig, JudgeConfig
from tasks.models.chat import adopt_template
from tasks.models.check import check_architecture
from tasks.models.external import pinned
from tasks.models.language import load_model, open_model
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import load_tokenizer
from tasks.rewards.functions import FunctionsConfig


def collect(config: CollectPreferencesConfig, stage: Stage) -> None:
    task, sft = stage.params(TaskConfig), stage.dep("models/sft")
    texts = JudgeTextsConfig.load(stage.dep(config.judge.templates))
    prompts = load_questions(config, stage)
    truth = Truth(config, stage.params(FunctionsConfig), task.verifier)
    policy, tokenizer = open_model(stage, sft)
    judge = make_judge(config.judge, texts, own_judge(config.judge, sft, stage), stage.device, stage.seed)
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


def own_judge(config: JudgeConfig, sft: Path, stage: Stage) -> Path | None:
    """The folder of a judge that is a model of this pipeline."""
    if config.model != "judge_model":
        return sft if config.model == "sft" else None
    folder = stage.dep("models/judge_model")
    if not (folder / "config.json").exists():
        raise InputError("collect_preferences.judge.model is judge_model, which was not trained: raise judge_model.num_steps")
    return folder


def make_judge(config: JudgeConfig, texts: JudgeTextsConfig, own: Path | None, device: str, seed: int) -> Judge:
    """own: the folder of the judge, where it is a model of this pipeline."""
    backend: Backend
    if config.base_url is not None:
        backend = Endpoint(config, config.base_url)
    else:
        revision = None if own else config.model_revision
        source = own.as_posix() if own else pinned(config.model, revision, "collect_preferences.judge", "model")
        model = load_model(source, device, revision).eval()
        tokenizer = load_tokenizer(source, revision)
        if not own:
            check_architecture(model, tokenizer)
            if tokenizer.chat_template:
                adopt_template(tokenizer, None)
        pin = digest(Path(source)) if Path(source).is_dir() else f"{source}@{revision}"
        backend = LocalJudge(model, tokenizer, f"{pin}, seed {seed}, device {device}", seed)
    return Judge(texts, backend, answers_folder(), config.rationale_tokens)


if __name__ == "__main__":
    run(CollectPreferencesConfig, collect)
