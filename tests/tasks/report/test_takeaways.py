"""The five takeaways: claims by hand on written sweeps, and verdicts that the intervals allow."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.report.sweep.takeaway_table import takeaway_table
from tasks.report.sweep.takeaways import TAKEAWAYS, Claim, findings, verdict
from tasks.report.sweep.variants import Sweep, Variant
from tests.rules.code import REPO
from tests.tasks.report.test_page import Reader

LISTED = YAML(typ="safe").load(REPO / "data/variants/takeaways.yaml")
SEEDS = (0, 1, 2, 3, 4)
SHARES = {"sft": 0.5, "ppo": 0.7, "reinforce": 0.6, "grpo": 0.65, "ilql": 0.55, "dagger": 0.9, "gail": 0.58, "maxent_irl": 0.52}
RATES = {"slow": -0.01, "chain": 0.0, "fast": 0.02}  # what each learning rate adds, times the model's place


def variant(name: str, seed: int, **changed: float) -> Variant:
    """Of each model that the list trains: its share, moved a little by the seed and by the learning rate."""
    models = ["sft", *LISTED[name]["policy.algorithms"]]
    shares = SHARES | changed
    places = {model: place for place, model in enumerate(SHARES)}  # that of SFT is 0: no rate moves it
    right = {model: shares[model] + seed / 1000 + RATES.get(name, 0.0) * places[model] for model in models}
    figures: Any = {model: {"sampled_accuracy": share} for model, share in right.items()}
    return Variant(
        f"{name}-{seed}", name, {"runtime.seed": seed}, "saved", "", "", contaminated=False, figures=figures,
        proxies={
            "reward_model": {"accuracy": 0.8 + seed / 100, "gold_correlation": 0.6 + seed / 100},
            "judge_model": {"judge/gold_agreement": 0.75 + seed / 100},
            "prompt_oirl": {"auc": 0.9 + seed / 100, "gain": 0.01 * (seed - 2)},
        },
        right={}, sampled={}, by_kind={model: {"one": 0.95, "three": share} for model, share in right.items()},
        tokens={}, seconds={}, alarms={},
    )  # fmt: skip


def sweep(**changed: float) -> Sweep:
    variants = [variant(name, seed, **changed) for name in LISTED for seed in SEEDS]
    return Sweep("takeaways", [], ["policy.algorithms"], {}, "runtime.seed", variants)


def test_the_listed_variants_measure_every_claim() -> None:
    found = findings(sweep())
    assert [(finding.title, [claim.says for claim in finding.claims]) for finding in found] == [
        (takeaway.title, list(takeaway.claims)) for takeaway in TAKEAWAYS
    ]
    assert {len(claim.by_seed) for finding in found for claim in finding.claims} == {len(SEEDS)}


def test_claims_by_hand() -> None:
    """The seed cancels out of every difference between two models of one variant."""
    online, compounding, proxy, hard, stable = (finding.claims for finding in findings(sweep()))
    assert [claim.mean for claim in online] == pytest.approx([0.2, 0.08, 0.02, 0.15])
    assert [claim.mean for claim in compounding] == pytest.approx([0.4, 0.08, 0.2])  # SFT loses .45, DAgger .05, ...
    assert [claim.mean for claim in proxy] == pytest.approx([0.32, 0.62, 0.27, 0.42, 0.0])
    assert [claim.mean for claim in hard] == pytest.approx([0.0, 0.0, 0.1])
    assert [claim.mean for claim in stable] == pytest.approx([0.03 * (4 - 1), 0.03 * (2 - 1), 0.03 * (3 - 1)])
    assert findings(sweep(ppo=0.4))[0].claims[0].mean == pytest.approx(-0.1)


def test_the_interval_is_over_seeds() -> None:
    gain = findings(sweep())[2].claims[-1]
    assert gain.by_seed == pytest.approx((-0.02, -0.01, 0.0, 0.01, 0.02))
    half = 2.776445 * 0.0158114 / 5**0.5  # Student's t with 4 degrees of freedom; standard deviation of the five
    assert (gain.low, gain.high) == pytest.approx((-half, half), rel=1e-5)
    assert gain.sure == 0


def claim(mean: float, p: float) -> Claim:
    return Claim("something", mean, mean - 0.1, mean + 0.1, p, (mean, mean))


@pytest.mark.parametrize(("claims", "sentence"), [
    ([claim(0.2, 0.01), claim(0.2, 0.05)], "Holds: 2 of 2 claims surely right."),
    ([claim(0.2, 0.01), claim(0.2, 0.06)], "Not decided: 1 of 2 claims surely right, none surely wrong."),
    ([claim(0.2, 0.01), claim(-0.2, 0.06)], "Not decided: 1 of 2 claims surely right, none surely wrong."),
    ([claim(0.2, 0.01), claim(-0.2, 0.05)], "Does not hold here: 1 of 2 claims surely wrong, 1 surely right."),
])  # fmt: skip
def test_the_verdict_goes_by_what_is_sure(claims: list[Claim], sentence: str) -> None:
    assert verdict(claims) == sentence


def test_other_sweeps_and_single_seeds_say_nothing() -> None:
    one_seed = Sweep("", [], ["policy.algorithms"], {}, "runtime.seed", [variant(name, 0) for name in LISTED])
    slow = Sweep("", [], ["policy.algorithms"], {}, "runtime.seed", [variant("slow", seed) for seed in SEEDS])
    assert findings(one_seed) == findings(slow) == []
    assert takeaway_table([]) == ""


def test_the_page_shows_every_claim_under_its_takeaway() -> None:
    found = findings(sweep())
    html = takeaway_table(found)
    (table,) = Reader(html).tables
    shown = [row["text"] for row in table[1:]]
    expected = [text for finding in found for text in (finding.title, *(claim.says for claim in finding.claims))]
    assert len(shown) == len(expected)
    assert all(text in row for text, row in zip(expected, shown, strict=True))
    claims = [claim for finding in found for claim in finding.claims]
    values = [row["values"] for row in table[1:] if row["values"]]
    assert [row[0] for row in values] == [(claim.mean, f"{100 * claim.mean:+.1f}".replace("-", "\u2212")) for claim in claims]
    assert all(finding.verdict in html for finding in found)
