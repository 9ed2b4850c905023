"""The five takeaways of a sweep over data/variants/takeaways.yaml: each a few claims, measured seed by seed.

Sun 2023, "Reinforcement Learning in the Era of LLMs: What is Essential? What is Needed?", argues for them; here they are tested
on text, on one small task. A claim is a difference that is above zero where the claim is true. It has one value a seed, so that
interval (95 %) and p (two-sided, after Holm's correction for the claims of its takeaway) speak of the next seed, too.

  holds                every claim is surely above zero
  does not hold here   one claim is surely below zero
  not decided          anything else
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tasks.core.statistics import holm, no_mean_over_seeds, over_seeds
from tasks.report.sweep.differences import SURE
from tasks.report.sweep.variants import Sweep, Variant

Seed: TypeAlias = Mapping[str, Variant]  # one seed of every variant, by its name in the list
Measure: TypeAlias = Callable[[Seed], float]
RATES = ("slow", "chain", "fast")


@dataclass(frozen=True)
class Claim:
    """A difference over seeds: its mean, 95 % interval, and p after Holm's correction for its takeaway."""

    says: str
    mean: float
    low: float
    high: float
    p_holm: float
    by_seed: tuple[float, ...]

    @property
    def sure(self) -> int:
        """1: surely right; -1: surely wrong; 0: neither."""
        return 0 if self.p_holm > SURE else 1 if self.mean > 0 else -1


@dataclass(frozen=True)
class Finding:
    title: str
    what: str
    verdict: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Takeaway:
    """what: of which quantity the claims speak. claims: what each says, and the difference that is above zero if it is true."""

    title: str
    what: str
    claims: Mapping[str, Measure]


def right(model: str, variant: str = "chain") -> Measure:
    """Share of right answers among sampled completions."""
    return lambda seed: seed[variant].figures[model]["sampled_accuracy"]


def gain(model: str, variant: str = "chain") -> Measure:
    return _minus(right(model, variant), right("sft", variant))


def lost_on_the_way(model: str) -> Measure:
    """Share of right answers to problems of one step less that to problems of three."""
    return lambda seed: seed["chain"].by_kind[model]["one"] - seed["chain"].by_kind[model]["three"]


def spread(model: str) -> Measure:
    """From the worst learning rate to the best, in right answers."""

    def measure(seed: Seed) -> float:
        shares = [right(model, variant)(seed) for variant in RATES]
        return max(shares) - min(shares)

    return measure


def agreement(stage: str, key: str, even: float) -> Measure:
    """How far a proxy is above `even`."""
    return lambda seed: seed["chain"].proxies[stage][key] - even


def _minus(one: Measure, other: Measure) -> Measure:
    return lambda seed: one(seed) - other(seed)


TAKEAWAYS = (
    Takeaway("RLHF is online inverse RL: a reward is learned offline, then optimized online", "right answers", {
        "PPO with a reward learned from preferences gains on SFT": gain("ppo"),
        "GAIL with a reward learned from the demonstrations gains on SFT": gain("gail"),
        "MaxEnt IRL with a reward learned from the demonstrations gains on SFT": gain("maxent_irl"),
        "PPO gains more than ILQL, which learns offline from the same preferences": _minus(right("ppo"), right("ilql")),
    }),
    Takeaway("RLHF beats SFT because errors of cloning compound", "right answers lost from one step to three", {
        "SFT loses more than DAgger": _minus(lost_on_the_way("sft"), lost_on_the_way("dagger")),
        "SFT loses more than GAIL": _minus(lost_on_the_way("sft"), lost_on_the_way("gail")),
        "SFT loses more than PPO": _minus(lost_on_the_way("sft"), lost_on_the_way("ppo")),
    }),
    Takeaway("A learned reward is a cheap proxy of expensive feedback", "agreement with it, above chance", {
        "The reward model orders held-out pairs as the annotator does": agreement("reward_model", "accuracy", 0.5),
        "It follows the verifier on samples (correlation)": agreement("reward_model", "gold_correlation", 0.0),
        "The AI judge agrees with the gold preference": agreement("judge_model", "judge/gold_agreement", 0.5),
        "Prompt-OIRL predicts without a call whether a prompt succeeds (AUC)": agreement("prompt_oirl", "auc", 0.5),
        "Its choice for each query is right more often than the best single prompt": agreement("prompt_oirl", "gain", 0.0),
    }),
    Takeaway("Text policies are hard: many actions, and a reward at the end alone", "right answers of PPO", {
        "PPO gains less with twice the vocabulary": _minus(gain("ppo"), gain("ppo", "more_actions")),
        "PPO gains more if it is paid for each step of a solution": _minus(gain("ppo", "step_rewards"), gain("ppo")),
        "PPO, to which a token is a step, gains more than REINFORCE, to which a completion is": _minus(
            right("ppo"), right("reinforce")
        ),
    }),
    Takeaway("PPO is the stable one", "right answers, from the worst of three learning rates to the best", {
        "ILQL, which is off-policy and value-based, spreads more": _minus(spread("ilql"), spread("ppo")),
        "REINFORCE spreads more": _minus(spread("reinforce"), spread("ppo")),
        "GRPO spreads more": _minus(spread("grpo"), spread("ppo")),
    }),
)  # fmt: skip


def findings(sweep: Sweep) -> list[Finding]:
    """One for each takeaway that the sweep can measure, over the seeds that every variant has; two seeds at least."""
    groups = sweep.groups
    shared = set.intersection(*map(set, groups.values())) if groups else set()
    seeds = [{label: group[seed] for label, group in groups.items()} for seed in sorted(shared)]
    found = [_finding(takeaway, seeds) for takeaway in TAKEAWAYS] if len(seeds) > 1 else []
    return [finding for finding in found if finding]


def _finding(takeaway: Takeaway, seeds: Sequence[Seed]) -> Finding | None:
    try:
        measured = {says: tuple(measure(seed) for seed in seeds) for says, measure in takeaway.claims.items()}
    except KeyError:  # a sweep over something else
        return None
    figures = [[[value] for value in by_seed] for by_seed in measured.values()]
    p_holm = holm([no_mean_over_seeds(each, same_prompts=False) for each in figures])
    claims = tuple(
        Claim(says, *over_seeds(each, same_prompts=False), p, by_seed)
        for (says, by_seed), each, p in zip(measured.items(), figures, p_holm, strict=True)
    )
    return Finding(takeaway.title, takeaway.what, verdict(claims), claims)


def verdict(claims: Sequence[Claim]) -> str:
    """In one sentence."""
    sure = sum(claim.sure > 0 for claim in claims)
    wrong = sum(claim.sure < 0 for claim in claims)
    if wrong:
        return f"Does not hold here: {wrong} of {len(claims)} claims surely wrong, {sure} surely right."
    if sure == len(claims):
        return f"Holds: {sure} of {len(claims)} claims surely right."
    return f"Not decided: {sure} of {len(claims)} claims surely right, none surely wrong."
