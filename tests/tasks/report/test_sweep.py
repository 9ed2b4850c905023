"""The page of a sweep: every recorded figure, differences with intervals, and words that the intervals allow."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.core import seeds
from tasks.core.files import read_json, write_json, write_table
from tasks.core.statistics import holm, no_difference, no_mean_over_seeds, over_seeds, paired_bootstrap
from tasks.report.sweep.differences import SAMPLES
from tasks.report.sweep.page import main, page
from tasks.report.sweep.variants import read_sweep
from tests.processes import python
from tests.tasks.report.test_page import Reader

RATE, SEED = "sft.learning_rate", "runtime.seed"
PROMPTS = 60


class Written:
    """A sweep in a folder, written by hand. base: what params.yaml says of the keys that vary."""

    def __init__(self, folder: Path, base: dict[str, Any]):
        self.folder, self.base = folder, base
        self.listed: list[str] = []
        self.variants: list[dict[str, Any]] = []
        self.right: dict[tuple[str, str], list[float]] = {}  # by name of the variant, and model
        self.sampled: dict[tuple[str, str], list[int]] = {}

    def add(self, name: str, params: dict[str, Any], prompts: str = "", metrics: bool = True, **shares: float) -> None:
        """A variant whose models are right with these chances. prompts: sets its test prompts apart from those of others."""
        """Each prompt is also answered by two samples; every policy samples 1000 tokens in each of three steps."""
        folder = self.folder / name
        shares = {"sft": 0.5} | shares
        found: dict[str, Any] = {"contaminated": 0, "policy": {}, "reward_model": {"accuracy": 0.8111, "accuracy_low": 0.7222}}
        rows = []
        for model, share in shares.items():
            chance = seeds.stream(0, name, model)
            right = [chance.random() < share for _ in range(PROMPTS)]
            self.right[name, model] = [float(one) for one in right]
            self.sampled[name, model] = [sum(chance.random() < share for _ in range(2)) for _ in range(PROMPTS)]
            figures = {"accuracy": sum(right) / PROMPTS, "accuracy_low": 0.1, "accuracy_high": 0.9}
            figures["sampled_accuracy"] = sum(self.sampled[name, model]) / 2 / PROMPTS
            if model == "sft":
                found["sft"] = figures
            else:
                found["policy"][model] = {"0": figures | {"win_rate": 0.5123}}
            raw = model if model == "sft" else f"policy.{model}.0"
            rows += [
                {
                    "model": raw, "id": f"test-{i}", "prompt": f"{prompts} {i}", "correct": one,
                    "samples": 2, "samples_right": self.sampled[name, model][i],
                }
                for i, one in enumerate(right)
            ]  # fmt: skip
            if metrics and model != "sft":
                history = [{"step": i, "rollout/score_mean": 0.1, "rollout/tokens": 1000.0} for i in range(3)]
                write_json(folder / f"reports/policy/{model}-0/history.json", history)
        if metrics:
            write_json(folder / "reports/metrics.json", found)
            write_table(folder / "reports/evaluate/completions.parquet", rows)
        self.variants.append(
            {
                "name": name,
                "listed": "",
                "params": params,
                "folder": str(folder),
                "why": "",
                "state": "saved",
                "experiment": f"x-{name}",
            }
        )

    def page(self) -> str:
        entry = {
            "title": " × ".join(self.base),
            "keys": list(self.base),
            "listed": self.listed,
            "base": self.base,
            "seed": SEED,
        }
        write_json(self.folder / "sweep.json", entry | {"variants": self.variants})
        return page(read_sweep(self.folder))


def mean(by_seed: list[list[float]]) -> float:
    return sum(sum(seed) / len(seed) for seed in by_seed) / len(by_seed)


def sampled_shares(sweep: Written, model: str, seeds: int = 6) -> list[list[float]]:
    return [[count / 2 for count in sweep.sampled[f"seed={seed}", model]] for seed in range(seeds)]


def values(html: str, caption: str) -> list[float]:
    begin = html.index(caption)
    (table,) = Reader(html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]).tables
    return [value for row in table for value, _ in row["values"]]


def rows(html: str, caption: str) -> tuple[list[str], dict[str, list[str]]]:
    """Heads of a table, and by the first word of each row its cells as they are read."""
    begin = html.index(caption)
    table = html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    read = [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in line] for line in lines]
    return read[0], {line[0].split()[0]: line for line in read[1:]}


def test_variants_and_their_differences_over_prompts(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {RATE: 0.003})
    sweep.add("rate=0.001", {RATE: 0.001}, ppo=0.9)
    sweep.add("rate=0.003", {RATE: 0.003}, ppo=0.4)
    html = sweep.page()
    assert "ppo with learning_rate 0.001 is better than with learning_rate 0.003; 1 of 2 cannot be told apart" in html
    assert "(of these models: one seed)." in html
    assert "Each variant against <b>learning_rate 0.003</b>" in html  # what params.yaml says
    shown, counts = values(html, "Each variant against"), {}
    for answers, of in ((sweep.sampled, 2), (sweep.right, 1)):
        for model in ("sft", "ppo"):
            pairs = zip(answers["rate=0.001", model], answers["rate=0.003", model], strict=True)
            counts[of, model] = [round(a - b) for a, b in pairs]
    for model in ("sft", "ppo"):
        for of in (2, 1):
            expected = paired_bootstrap([count / of for count in counts[of, model]], SAMPLES, seed=0)
            both = holm([no_difference(counts[of, each]) for each in ("sft", "ppo")])
            assert [*expected, both[model == "ppo"]] == pytest.approx(shown[:4])
            del shown[:4]
    assert shown == []
    heads, read = rows(html, "Each variant against")
    assert (heads[1], heads[2], heads[3 + 2]) == ("seeds × prompts", "sampled, points", "greedy, points")
    assert "of these models" not in heads  # there is nothing else
    assert (read["ppo"][1], read["ppo"][4].split()[0], read["sft"][4].split()[:2]) == ("1 × 60", "better", ["cannot", "tell"])
    shares = [sum(right) / PROMPTS for right in sweep.right.values()]
    assert set(shares) | {0.5123, 0.8111} <= set(values(html, "Every variant;"))
    assert "dvc exp apply x-rate=0.001" in html
    assert "Over seeds" not in html


def test_seeds_are_the_unit_of_replication(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {SEED: 0})
    for seed in range(6):
        sweep.add(f"seed={seed}", {SEED: seed}, prompts=f"of seed {seed}", ppo=0.9, dpo=0.45)
    html = sweep.page()
    assert "ppo is better than SFT; 1 of 2 cannot be told apart, over 6 seeds." in html
    shown = values(html, "Each model over seeds")
    by_seed = {model: [sweep.right[f"seed={seed}", model] for seed in range(6)] for model in ("sft", "ppo", "dpo")}
    sampled = {model: sampled_shares(sweep, model) for model in by_seed}
    for figures in sampled.values():
        assert list(over_seeds(figures, same_prompts=False)) == shown[:3]
        assert shown[3:9] == [sum(seed) / PROMPTS for seed in figures]
        del shown[:9]
    assert shown == []
    shown = values(html, "SFT and every policy, the best first")
    assert shown[:2] == [mean(sampled["sft"]), mean(by_seed["sft"])]
    del shown[:2]
    kinds = (sampled, by_seed)
    gains = [
        {model: [[a - b for a, b in zip(*both, strict=True)] for both in zip(found[model], found["sft"], strict=True)]
         for model in ("ppo", "dpo")}
        for found in kinds
    ]  # fmt: skip
    for model in ("ppo", "dpo"):  # of a chance of 0.9 and of 0.45
        for found, gained in zip(kinds, gains, strict=True):
            p = holm([no_mean_over_seeds(gained[each], same_prompts=False) for each in ("ppo", "dpo")])
            together = paired_bootstrap([each for seed in gained[model] for each in seed], SAMPLES, seed=0)
            expected = [mean(found[model]), *over_seeds(gained[model], same_prompts=False)]
            expected += [p[model == "dpo"], *together[1:]]
            assert shown[: len(expected)] == pytest.approx(expected)
            del shown[: len(expected)]
        assert shown[:2] == [pytest.approx(0.5123), 3000.0]  # win rate, tokens; nothing else was recorded
        del shown[:2]
    assert shown == []
    heads, read = rows(html, "SFT and every policy, the best first")
    assert heads[1:4] == ["seeds × prompts", "sampled, %", "gain, points"]
    assert [heads[place] for place in (5, 6, 7, 10)] == ["in words", "of these models", "greedy, %", "of these models"]
    assert (read["ppo"][1], read["ppo"][5].split()[0], read["dpo"][5].split()[:2]) == ("6 × 60", "better", ["cannot", "tell"])
    assert "Over 6 seeds of 60 prompts, 1 of 2 policies in sampled completions and 1 in greedy ones" in html
    assert "Differences between variants" not in html  # they differ in nothing but the seed


def test_the_zoo_has_one_table(tmp_path: Path) -> None:
    """Nineteen policies over three seeds: sorted by gain, with what they cost and what went wrong; models stand in rows."""
    sweep = Written(tmp_path, {SEED: 0})
    shares = {f"method{i}": 0.4 + 0.02 * i for i in range(19)}
    for seed in range(3):
        sweep.add(f"seed={seed}", {SEED: seed}, prompts=f"of seed {seed}", **shares)
        sweep.variants[-1]["seconds"] = {"policy@method3-0": 30.0 + seed, "sft": 7.0}
    history = [{"step": i, "rollout/score_mean": 0.1, "rollout/tokens": 1000.0, "alarm/kl_budget": 1.0} for i in range(3)]
    write_json(tmp_path / "seed=1/reports/policy/method5-0/history.json", history)
    html = sweep.page()
    main(tmp_path)
    rows = read_json(tmp_path / "gains.json")
    assert rows[0]["model"] == "sft"
    gains = [row["sampled"]["gain"] for row in rows[1:]]
    assert gains == sorted(gains, reverse=True)
    found = {row["model"]: row for row in rows}
    assert found["method3"]["seconds"] == 31.0
    assert (found["method4"]["seconds"], found["method4"]["tokens"]) == (None, 3000.0)
    assert found["method5"]["alarms"] == found["method5"]["ended_with"] == {"kl_budget": 1}
    assert "kl_budget in 1 of 3 seeds" in html
    assert all(found[f"method{i}"]["sampled"]["p"] <= found[f"method{i}"]["sampled"]["p_holm"] for i in range(19))
    decided = [row["sampled"]["words"] == "better" for row in rows[1:]]
    assert decided == [row["sampled"]["p_holm"] <= 0.05 and row["sampled"]["gain"] > 0 for row in rows[1:]]
    seeming = sum(row["sampled"]["p"] <= 0.05 for row in rows[1:])
    assert sum(decided) < seeming  # of nineteen, some would seem to be better each by itself
    begin = html.index("Every variant;")
    (table,) = Reader(html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]).tables
    assert [row["text"].split()[0] for row in table[1:]] == [SEED, "sft", *shares, "reward"]
    assert "alarm kl_budget" in table[8]["text"]


def test_seeds_on_the_same_prompts_share_their_luck(tmp_path: Path) -> None:
    sweep = Written(tmp_path, {RATE: 0.003, SEED: 0})
    for rate, share in ((0.003, 0.5), (0.001, 0.7)):
        for seed in range(3):
            sweep.add(f"rate={rate},seed={seed}", {RATE: rate, SEED: seed}, sft=share)
    html = sweep.page()
    shown = values(html, "Each variant against")
    for answers, of in ((sweep.sampled, 2), (sweep.right, 1)):
        sides = [(answers[f"rate=0.001,seed={seed}", "sft"], answers[f"rate=0.003,seed={seed}", "sft"]) for seed in range(3)]
        differences = [[a / of - b / of for a, b in zip(*both, strict=True)] for both in sides]
        expected = [*over_seeds(differences, same_prompts=True), no_mean_over_seeds(differences, same_prompts=True)]
        expected += paired_bootstrap([each for seed in differences for each in seed], SAMPLES, seed=0)[1:]
        assert shown[: len(expected)] == pytest.approx(expected)
        del shown[: len(expected)]
    assert shown == []
    heads, read = rows(html, "Each variant against")
    assert [heads[place] for place in (2, 5, 6, 8)] == [
        "sampled, points",
        "of these models",
        "greedy, points",
        "of these models",
    ]
    assert read["sft"][1] == "3 × 60"


def test_listed_variants_go_by_their_names(tmp_path: Path) -> None:
    """And what params.yaml does not say is compared with the first of them."""
    sweep = Written(tmp_path, {RATE: 0.003, SEED: 0})
    sweep.listed = [RATE]
    for name, rate in (("slow", 0.001), ("fast", 0.01)):
        for seed in range(2):
            sweep.add(f"{name},seed={seed}", {RATE: rate, SEED: seed}, ppo=0.9)
            sweep.variants[-1]["listed"] = name
    html = sweep.page()
    assert "Each variant against <b>slow</b>" in html
    assert "<small>fast</small>" in html
    assert "learning_rate 0.01" not in html
    main(tmp_path)
    found = {row["model"]: row for row in read_json(tmp_path / "differences.json")}
    sides = [(sweep.right[f"fast,seed={seed}", "ppo"], sweep.right[f"slow,seed={seed}", "ppo"]) for seed in range(2)]
    differences = [[a - b for a, b in zip(*both, strict=True)] for both in sides]
    together = paired_bootstrap([each for seed in differences for each in seed], SAMPLES, seed=0)
    greedy = found["ppo"]["greedy"]
    assert (greedy["difference"], greedy["models_low"], greedy["models_high"]) == pytest.approx(together)
    assert [greedy["low"], greedy["high"]] == pytest.approx(over_seeds(differences, same_prompts=True)[1:])
    assert (found["ppo"]["group"], found["ppo"]["reference"]) == ("fast", "slow")


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
    done = python(tmp_path, "-m", "tasks.report.sweep.page", "nowhere")
    assert (done.code, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "nowhere/sweep.json is missing" in done.stderr
    assert sys.getsizeof(html) < 60_000
