"""The page of a sweep: every recorded figure, differences with intervals, and words that the intervals allow."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.core import seeds
from tasks.core.files import write_json, write_table
from tasks.core.statistics import over_seeds, paired_bootstrap, sign_flip
from tasks.report.differences import SAMPLES
from tasks.report.sweep import main, page
from tasks.report.variants import read_sweep
from tests.processes import python
from tests.tasks.report.test_page import Reader

RATE, SEED = "sft.learning_rate", "runtime.seed"
PROMPTS = 60


class Written:
    """A sweep in a folder, written by hand. base: what params.yaml says of the keys that vary."""

    def __init__(self, folder: Path, base: dict[str, Any]):
        self.folder, self.base = folder, base
        self.variants: list[dict[str, Any]] = []
        self.right: dict[tuple[str, str], list[float]] = {}  # by name of the variant, and model

    def add(self, name: str, params: dict[str, Any], prompts: str = "", metrics: bool = True, **shares: float) -> None:
        """A variant whose models are right with these chances. prompts: sets its test prompts apart from those of others."""
        folder = self.folder / name
        shares = {"sft": 0.5} | shares
        found: dict[str, Any] = {"contaminated": 0, "policy": {}, "reward_model": {"accuracy": 0.8111, "accuracy_low": 0.7222}}
        rows = []
        for model, share in shares.items():
            chance = seeds.stream(0, name, model)
            right = [chance.random() < share for _ in range(PROMPTS)]
            self.right[name, model] = [float(one) for one in right]
            figures = {"accuracy": sum(right) / PROMPTS, "accuracy_low": 0.1, "accuracy_high": 0.9}
            if model == "sft":
                found["sft"] = figures
            else:
                found["policy"][model] = {"0": figures | {"win_rate": 0.5123}}
            raw = model if model == "sft" else f"policy.{model}.0"
            rows += [
                {"model": raw, "id": f"test-{i}", "prompt": f"{prompts} {i}", "correct": one} for i, one in enumerate(right)
            ]
        if metrics:
            write_json(folder / "reports/metrics.json", found)
            write_table(folder / "reports/evaluate/completions.parquet", rows)
        self.variants.append(
            {"name": name, "params": params, "folder": str(folder), "why": "", "state": "saved", "experiment": f"x-{name}"}
        )

    def page(self) -> str:
        entry = {"title": " × ".join(self.base), "keys": list(self.base), "base": self.base, "seed": SEED}
        write_json(self.folder / "sweep.json", entry | {"variants": self.variants})
        return page(read_sweep(self.folder))


def values(html: str, caption: str) -> list[float]:
    begin = html.index(caption)
    (table,) = Reader(html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]).tables
    return [value for row in table for value, _ in row["values"]]


def test_variants_and_their_differences_over_prompts(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {RATE: 0.003})
    sweep.add("rate=0.001", {RATE: 0.001}, ppo=0.9)
    sweep.add("rate=0.003", {RATE: 0.003}, ppo=0.4)
    html = sweep.page()
    assert "ppo with learning_rate 0.001 is better than with learning_rate 0.003; 1 of 2 cannot be told apart." in html
    assert "Each variant against <b>learning_rate 0.003</b>" in html  # what params.yaml says
    shown = values(html, "Each variant against")
    for model in ("sft", "ppo"):
        pairs = zip(sweep.right["rate=0.001", model], sweep.right["rate=0.003", model], strict=True)
        expected = paired_bootstrap([a - b for a, b in pairs], SAMPLES, seed=0)
        assert list(expected) == shown[:3]
        del shown[:3]
    shares = [sum(right) / PROMPTS for right in sweep.right.values()]
    assert set(shares) | {0.5123, 0.8111} <= set(values(html, "Every variant;"))
    assert "dvc exp apply x-rate=0.001" in html
    assert "Over seeds" not in html


def test_seeds_are_the_unit_of_replication(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {SEED: 0})
    for seed in range(6):
        sweep.add(f"seed={seed}", {SEED: seed}, prompts=f"of seed {seed}", ppo=0.9, dpo=0.5)
    html = sweep.page()
    assert "ppo is better than SFT; 1 of 2 cannot be told apart, over 6 seeds." in html
    assert "With 6 seeds p cannot be below 0.0312." in html
    shown = values(html, "Each model over seeds")
    by_seed = {model: [sweep.right[f"seed={seed}", model] for seed in range(6)] for model in ("sft", "ppo", "dpo")}
    for model, figures in by_seed.items():
        assert list(over_seeds(figures, same_prompts=False)) == shown[:3]
        del shown[:3]
        if model != "sft":
            gains = [
                [a - b for a, b in zip(ours, theirs, strict=True)] for ours, theirs in zip(figures, by_seed["sft"], strict=True)
            ]
            assert [*over_seeds(gains, same_prompts=False), sign_flip([sum(gain) / PROMPTS for gain in gains])] == shown[:4]
            del shown[:4]
    assert "Differences between variants" not in html  # they differ in nothing but the seed


def test_seeds_on_the_same_prompts_share_their_luck(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {RATE: 0.003, SEED: 0})
    for rate, share in ((0.003, 0.5), (0.001, 0.7)):
        for seed in range(3):
            sweep.add(f"rate={rate},seed={seed}", {RATE: rate, SEED: seed}, sft=share)
    html = sweep.page()
    differences = [
        [
            a - b
            for a, b in zip(
                sweep.right[f"rate=0.001,seed={seed}", "sft"], sweep.right[f"rate=0.003,seed={seed}", "sft"], strict=True
            )
        ]
        for seed in range(3)
    ]
    expected = over_seeds(differences, same_prompts=True)
    assert values(html, "Each variant against") == [*expected, 0.25]
    assert "6 seeds are needed for 0.05" in html


def test_other_prompts_with_one_seed_are_not_compared(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {"prepare_data.sources": "a.yaml"})
    for name in ("a", "b"):
        sweep.add(name, {"prepare_data.sources": f"{name}.yaml"}, prompts=name, ppo=0.9)
    html = sweep.page()
    assert "Nothing was recorded that can be compared." in html
    assert "Each variant against" not in html


def test_what_is_missing_is_a_dash_and_what_failed_says_why(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script> $style"
    sweep = Written(tmp_path, {RATE: 0.003})
    sweep.add("whole", {RATE: 0.003}, ppo=0.9)
    sweep.add("bare", {RATE: 0.002})
    sweep.add("nothing", {RATE: 0.001}, metrics=False)
    sweep.add("broken", {RATE: attack})
    sweep.variants[-1] |= {"state": "failed", "why": attack, "experiment": ""}
    write_json(tmp_path / "bare/reports/metrics.json", {"sft": {"accuracy": 0.4}, "policy": {"dpo": {"0": {"kl": 0.1}}}})
    (tmp_path / "bare/reports/evaluate/completions.parquet").unlink()
    html = sweep.page()
    assert "3 of 4 variants ended well" in html
    assert "saved: nothing of an evaluation is recorded" in html
    assert "failed: &lt;script&gt;" in html
    assert attack not in html
    assert "–" in html
    assert not re.search(r"https?:|//[a-z]|@import|<script", html)


def test_contamination_marks_the_page(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {RATE: 0.003})
    sweep.add("a", {RATE: 0.003})
    file = tmp_path / "a/reports/metrics.json"
    file.write_text(file.read_text().replace('"contaminated": 0', '"contaminated": 1'))
    html = sweep.page()
    assert 'role="alert"' in html
    assert html.count('<span class="leak">Contaminated.</span>') == html.count("<caption>") == 1


def test_the_same_files_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Written(tmp_path, {RATE: 0.003})
    sweep.add("a", {RATE: 0.003}, ppo=0.9)
    html = sweep.page()
    main(tmp_path)
    assert (tmp_path / "index.html").read_text() == html
    done = python(tmp_path, "-m", "tasks.report.sweep", "nowhere")
    assert (done.code, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "nowhere/sweep.json is missing" in done.stderr
    assert sys.getsizeof(html) < 60_000
