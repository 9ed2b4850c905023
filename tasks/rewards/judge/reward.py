"""An AI judge as a reward, without a reward model between: direct RLAIF, Lee et al. 2023, "RLAIF vs. RLHF".

    judge(x, y) = P(y preferred to y_sft | x),   y_sft: the greedy completion of x by the SFT model

in the mean of both orders, as for feedback: ½ (P("1" | y, y_sft) + P("2" | y_sft, y)). ½ is as good as the SFT model.

How this differs from the paper: there the judge rates one completion from 1 to 10. Here it compares two, so that one judge with
one text serves feedback and reward: that of `collect_preferences.judge`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.errors import InputError
from tasks.core.files import read_table
from tasks.core.stage import Stage
from tasks.models.batch import Batch
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.generate import sample
from tasks.models.language import open_model
from tasks.models.text import TaskConfig, decode, encode_prompts
from tasks.rewards.judge.settings import JudgeConfig
from tasks.rewards.judge.texts import JudgeTextsConfig, Question
from tasks.rewards.judge.verdicts import VERDICT_TOKENS, first_probabilities, in_turns, open_judge, refuse_too_long

Prompt = tuple[int, ...]  # token ids


class JudgeReward:
    """Each completion against what the SFT model says to the same prompt."""

    def __init__(
        self,
        judge: tuple[Any, Any],
        sft: tuple[Any, Any],
        texts: JudgeTextsConfig,
        queries: Mapping[Prompt, str],
        max_new_tokens: int,
    ):
        """judge, sft: model and tokenizer. queries: by the ids of their prompts; a judge reads no instruction."""
        (self.judge, self.judge_tokenizer), (self.sft, self.tokenizer) = judge, sft
        self.texts, self.queries, self.max_new_tokens = texts, queries, max_new_tokens

    def __call__(self, batch: Batch, completions: Sequence[str]) -> list[float]:
        """P(preferred) of each completion. completions: the text of those of the batch."""
        prompts = [tuple(ids) for ids in batch.prompts()]
        references = self.references([*dict.fromkeys(prompts)])
        pairs = zip(prompts, completions, strict=True)
        shown = [Question("", self.queries[prompt], text, references[prompt]) for prompt, text in pairs]
        orders = [*shown, *(question.turned() for question in shown)]
        first = first_probabilities(self.judge, self.judge_tokenizer, [self._read(question) for question in orders])
        return [(before + 1 - behind) / 2 for before, behind in zip(first[: len(shown)], first[len(shown) :], strict=True)]

    def references(self, prompts: Sequence[Prompt]) -> dict[Prompt, str]:
        """Written anew each time: what is kept between steps would have to be in a checkpoint."""
        ids = [list(prompt) for prompt in prompts]
        rollout = sample(self.sft, self.tokenizer, ids, max_new_tokens=self.max_new_tokens, temperature=0.0)
        return {prompt: decode(self.tokenizer, ids) for prompt, ids in zip(prompts, rollout.completions(), strict=True)}

    def longest_question(self) -> int:
        """Tokens of the longest there may be, and of its verdict."""
        queries = encode_prompts(self.judge_tokenizer, [*self.queries.values()])
        around = encode_prompts(self.judge_tokenizer, [self._read(Question("", "", "", ""))])
        return len(around[0]) + max(map(len, queries)) + 2 * self.max_new_tokens + VERDICT_TOKENS

    def _read(self, question: Question) -> str:
        return in_turns(self.judge_tokenizer, self.texts.asked(question) + self.texts.before_verdict())


def load_judge_reward(stage: Stage, task: TaskConfig) -> JudgeReward:
    config = stage.params(JudgeConfig)
    if config.base_url is not None:
        raise InputError(
            "reward.weights: judge is asked about every completion of every step, for which an endpoint is too expensive "
            "and not reproducible; name a local model in collect_preferences.judge, with base_url: null"
        )
    if config.rationale_tokens:
        raise InputError(
            "reward.weights: as a reward, judge writes no rationale: set collect_preferences.judge.rationale_tokens to 0"
        )
    texts = JudgeTextsConfig.load(stage.dep(config.templates))
    model, judge_tokenizer, _ = open_judge(config, stage)
    judge = apply_settings(model, stage.params(ComputeConfig)), judge_tokenizer
    sft, tokenizer = open_model(stage, stage.dep("models/sft"))
    rows = read_table(stage.dep("data/prepared/prompts.parquet"))
    encoded = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    queries = {tuple(ids): row["query"] for ids, row in zip(encoded, rows, strict=True)}
    reward = JudgeReward(judge, (sft, tokenizer), texts, queries, task.max_new_tokens)
    refuse_too_long(model, reward.longest_question())
    return reward
