"""What the intervals allow to say of the policies. A figure is `better` or `worse` only if its whole interval is."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Literal

from tasks.report.prompt_oirl.verdict import prompt_summary
from tasks.report.recorded import Figures
from tasks.report.run.alarm_table import still_alarmed
from tasks.report.run.recorded import Policy, Recorded
from tasks.report.wording import data, listing, share

Standing = Literal["better", "worse", "unclear"]
NAMED = 4  # at most so many algorithms in one clause of the verdict; more are counted


def standing(figures: Figures) -> Standing:
    """Against SFT, by the 95 % interval of the win rate."""
    if figures["win_rate_low"] > 0.5:
        return "better"
    return "worse" if figures["win_rate_high"] < 0.5 else "unclear"


def verdict(algorithms: Mapping[str, Sequence[Policy]]) -> str:
    """Which algorithms beat SFT, in one sentence; with several seeds, in every one of them."""
    standings = {name: [standing(policy.figures) for policy in policies] for name, policies in algorithms.items()}
    better = [name for name, found in standings.items() if set(found) == {"better"}]
    worse = [name for name, found in standings.items() if set(found) == {"worse"}]
    others = [name for name in standings if name not in better + worse]
    partly = {name: standings[name].count("better") for name in others if "better" in standings[name]}
    never = [name for name in others if name not in partly]
    everywhere = " in every seed" if any(len(found) > 1 for found in standings.values()) else ""
    if better:
        clauses = [
            f"{_named(better, standings)} {'beats' if len(better) == 1 else 'beat'} SFT with 95 % confidence{everywhere}"
        ]
        if never:
            clauses.append(f"{_named(never)} {'does' if len(never) == 1 else 'do'} not")
    else:
        clauses = [f"No policy beats SFT with 95 % confidence{everywhere}"]
    if len(partly) <= NAMED:
        clauses += [f"{name} does in {count} of {len(standings[name])} seeds" for name, count in partly.items()]
    else:
        clauses.append(f"{len(partly)} do in some of the seeds")
    if worse:
        clauses.append(f"{_named(worse)} {'is' if len(worse) == 1 else 'are'} worse than SFT")
    return "; ".join(clauses) + "."


def _named(names: Sequence[str], of: Collection[str] = ()) -> str:
    if len(names) <= NAMED:
        return listing(names)
    return f"{len(names)} of {len(of)} algorithms" if of else str(len(names))


def mean(policies: Sequence[Policy], key: str) -> float | None:
    values = [policy.figures[key] for policy in policies if key in policy.figures]
    return sum(values) / len(values) if values else None


def summary(recorded: Recorded) -> str:
    """What the verdict amounts to, in figures; HTML."""
    sentences = []
    means = {name: mean(policies, "sampled_accuracy") for name, policies in recorded.algorithms.items()}
    known = {name: value for name, value in means.items() if value is not None}
    if known and "sampled_accuracy" in recorded.sft:
        best = max(known, key=lambda name: known[name])
        distance = data(mean(recorded.algorithms[best], "kl"), "decimal")
        sentences.append(
            f"Of completions sampled for {recorded.num_prompts} test prompts, {share(recorded.sft['sampled_accuracy'])} of the "
            f"SFT model's are right, and {share(known[best])} of those of {escape(best)}, the most accurate policy, at a KL "
            f"divergence of {distance} nats from SFT. "
            f"SFT itself reaches {share(recorded.cool_sft['sampled_accuracy'])} at a lower temperature, without any training."
        )
    sentences += [still_alarmed(recorded.policies), prompt_summary(recorded.prompt_oirl)]
    return " ".join(filter(None, sentences))
