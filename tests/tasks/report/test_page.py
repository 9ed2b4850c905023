"""The page says what was recorded, all of it, and nothing else."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.files import write_json
from tasks.report.alarms import MEANINGS
from tasks.report.drawing import house_style
from tasks.report.run.charts import draw, on_policy
from tasks.report.run.recorded import Policy
from tasks.report.run.sections import JUDGE
from tasks.report.run.verdicts import verdict
from tasks.report.template import LEAK
from tasks.report.whiskers import WIDTH, whisker
from tasks.training.alarms import CHECKS
from tests.tasks.report.conftest import BETTER, RIGHT, STEPS, UNCLEAR, WORSE, Run, expectations, figures, history_of

MakeRun = Callable[..., Run]
POLICY_KEYS = [
    "sampled_accuracy", "sampled_accuracy_low", "sampled_accuracy_high", "sampled_accuracy_p",
    "win_rate", "win_rate_low", "win_rate_high",
    "accuracy", "accuracy_low", "accuracy_high", "accuracy_p", "kl", "kl_low", "kl_high", "entropy",
    "score", "perplexity", "length", "eos_rate", "distinct_bigrams",
]  # fmt: skip
HIDDEN = {"score_mean", "score_std", "contaminated"}
READ_AS = {
    "kl": "{:.2f}",
    "entropy": "{:.2f}",
    "score": "{:+.2f}",
    "length": "{:.1f}",
    "perplexity": "{:.2f}",
}  # the others are percentages


class Reader(HTMLParser):
    """Tables as rows of (text, [(recorded value, shown text)]), all recorded values, and what is referred to."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: list[list[dict[str, Any]]] = []
        self.values: list[tuple[float, str]] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self._value: float | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.references += [str(found[key]) for key in ("src", "href", "xlink:href", "action", "data") if key in found]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append({"text": "", "values": []})
        elif tag == "data":
            self._value = float(str(found["value"]))

    def handle_data(self, data: str) -> None:
        if self.tables and self.tables[-1]:
            self.tables[-1][-1]["text"] += data + " "
        if self._value is not None:
            self.values.append((self._value, data))
            if self.tables and self.tables[-1]:
                self.tables[-1][-1]["values"].append((self._value, data))
            self._value = None


def rows_of(html: str, caption: str) -> dict[str, dict[str, Any]]:
    """Rows of the table with this caption, by the first word."""
    begin = html.index(caption)
    (table,) = Reader(html[html.rindex("<table", 0, begin) : html.index("</table>", begin)]).tables
    return {row["text"].split()[0].rstrip(","): row for row in table[1:]}


def shown(key: str, value: float) -> str:
    if key.endswith("_p"):
        return f"{value:.3f}" if value >= 0.001 else "<0.001"
    style = next((form for start, form in READ_AS.items() if key.startswith(start)), None)
    return (style.format(value) if style else f"{100 * value:.1f}").replace("-", "−")


def test_comparison_shows_every_recorded_figure(make_run: MakeRun) -> None:
    run = make_run().write()
    rows = rows_of(run.page(), "The SFT model and each policy")
    recorded = {"sft": run.metrics["sft"], "cooler": run.metrics["control"]["cool_sft"]}
    recorded |= {name: seeds["0"] for name, seeds in run.metrics["policy"].items()}
    assert list(rows) == ["sft", "cooler", "ppo", "grpo", "dpo"]
    for name, found in recorded.items():
        keys = [key for key in POLICY_KEYS if key in found]
        assert rows[name]["values"] == [(found[key], shown(key, found[key])) for key in keys]


def test_other_sections_show_every_recorded_figure(make_run: MakeRun) -> None:
    run = make_run().write()
    values = {value for value, _ in Reader(run.page()).values}
    for section in ("reward_model", "prompt_oirl"):
        recorded = {key: value for key, value in run.metrics[section].items() if key not in HIDDEN}
        assert set(recorded.values()) <= values
    assert 139584.0 in values
    assert {row[key] for row in run.prompts for key in ("train_success", "test_success")} <= values


LABELS = {
    "reward_model": {
        "held-out pairs in the annotator's order, %": "accuracy",
        "of a perfect reward model, %": "accuracy_ceiling",
        "of the words alone (TF-IDF, logistic regression), %": "baseline_accuracy",
        "of “the longer one”, %": "longer_wins",
        "correlation of score and right answer": "gold_correlation",
        "of score and length": "length_correlation",
    },
    "prompt_oirl": {
        "Prompt-OIRL, %": "success",
        "best single prompt, %": "best_prompt_success",
        "random prompt, %": "random_success",
        "oracle, %": "oracle_success",
        "AUC of predictions": "auc",
    },
    "judge": {
        "the truly better one chosen, % of pairs": "judge/gold_agreement",
        "the same verdict when asked again, %": "judge/self_agreement",
        "verdicts that the order decided, %": "judge/position_bias",
        "mean probability of the first, %": "judge/first_position",
        "questions, each in both orders": "judge/questions",
        "of those without a verdict": "judge/no_verdict",
        "of those undecided": "judge/undecided",
        "tokens that it read": "judge/prompt_tokens",
        "tokens that it wrote": "judge/completion_tokens",
    },
}


def test_every_figure_stands_under_its_own_title(make_run: MakeRun) -> None:
    run = make_run()
    run.feedback |= {name: 0.9 - i / 97 for i, name in enumerate(JUDGE)}
    html = run.write().page()
    for section, labels in LABELS.items():
        recorded = run.feedback if section == "judge" else run.metrics[section]
        for title, key in labels.items():
            [shown] = re.findall(rf'<dt>{re.escape(title)}</dt><dd><data value="([^"]+)"', html)
            assert float(shown) == recorded[key], title


def params_of(html: str) -> dict[str, dict[str, str]]:
    """Key and value by namespace, as the page shows them."""
    found = {}
    for name, body in re.findall(r'<table class="params"><caption>(.*?)</caption>(.*?)</table>', html, re.DOTALL):
        cells = r'<th scope="row"><code class="data">(.*?)</code></th><td><code class="data">(.*?)</code></td>'
        found[name] = dict(re.findall(cells, body))
    return found


def test_every_param_stands_beside_its_key_in_its_namespace(make_run: MakeRun) -> None:
    """Of the algorithms that run, each once however many seeds it has, and of what they share."""
    run = make_run(seeds=(0, 1))
    run.params["reward"] = {"weights": {"verifier": 0.25, "reward_model": 0.75}, "functions": {"mood": {"good": ["<b>", "é"]}}}
    run.params["policy.grpo"] |= {"max_ratio": None, "kl_correction": True, "reduction": "token_mean"}
    run.params["policy.unused"] = {"beta": 1.0}
    expected = {name: {key: str(value) for key, value in values.items()} for name, values in run.params.items()}
    expected["reward"] = {
        "weights.verifier": "0.25", "weights.reward_model": "0.75",
        "functions.mood.good": "[&quot;&lt;b&gt;&quot;, &quot;é&quot;]",
    }  # fmt: skip
    expected["policy.grpo"] |= {"max_ratio": "null", "kl_correction": "true"}
    del expected["policy.unused"]
    found = params_of(run.write().page())
    assert found == expected
    assert list(found)[:4] == ["policy.ppo", "policy.grpo", "policy.dpo", "runtime"]
    run.params["policy.ppo"], run.params["policy.dpo"] = run.params["policy.dpo"], run.params["policy.ppo"]
    assert params_of(run.write().page()) == expected | {
        "policy.ppo": expected["policy.dpo"],
        "policy.dpo": expected["policy.ppo"],
    }


def test_whiskers_grow_to_the_right() -> None:
    svg = whisker(SimpleNamespace(mean=0.2, low=-0.1, high=0.5, by_seed=(0.1, 0.3)), (-1.0, 1.0), "better")
    low, high = map(float, re.search(r"M([\d.]+) 9H([\d.]+)", svg).groups())
    left, right, middle = map(float, re.findall(r'<circle cx="([\d.]+)"', svg))
    assert float(re.search(r"M([\d.]+) 0V18", svg)[1]) == WIDTH / 2
    assert low < WIDTH / 2 < left < middle < right < high


def test_where_the_reward_model_agrees_is_shown(make_run: MakeRun) -> None:
    """By group, escaped, with intervals; and how far its margins can be believed. Absent where a run recorded neither."""
    run = make_run().write()
    html = run.page()
    for group in (
        "kind of pair: right against wrong",
        "size of the margin: 0.00 to 1.00",
        "annotator's gap: 0.02 to &lt;b&gt;",
    ):
        assert group in html
    assert {0.7531, 0.6512, 0.8345} <= {value for value, _ in Reader(html).values}
    with house_style():
        (axes,) = draw(run.load())["reward_model_reliability"].axes
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[[100 * row["predicted"], row["right"]]] for row in run.reward_calibration]
    older = make_run(name="older")
    older.reward_calibration, older.reward_agreement = [], []
    older.histories["reward_model"] = [{"step": i, "loss/plackett_luce": 2.0 - i / 9, "train/accuracy": 0.5} for i in range(5)]
    older.metrics["reward_model"]["step_auc"] = 0.9876
    html = older.write().page()
    assert "kind of pair" not in html
    assert "Plackett-Luce loss" in html
    assert 0.9876 in {value for value, _ in Reader(html).values}


def test_how_far_a_judge_can_be_trusted_is_shown(make_run: MakeRun) -> None:
    run = make_run()
    run.feedback |= {name: 0.9 - i / 97 for i, name in enumerate(JUDGE)}
    run.feedback |= {"judge/gold_agreement_low": 0.8321, "judge/gold_agreement_high": 0.9123}
    html = run.write().page()
    judged = {value for name, value in run.feedback.items() if name.startswith("judge/")}
    assert judged <= {value for value, _ in Reader(html).values}
    assert "an AI judge" not in make_run(name="annotated").write().page()


def test_prompts_and_who_is_right_are_counted(make_run: MakeRun) -> None:
    html = make_run().write().page()
    prompts = rows_of(html, "The candidate prompts")
    assert [prompts[name]["values"][-1][0] for name in ("short", "steps")] == [12, 12]
    assert [prompts[name]["values"][-3][0] for name in ("short", "steps")] == [0.5, 0.5]  # right where chosen
    assert [prompts[name]["values"][-2][0] for name in ("short", "steps")] == [0.5, 0.5]  # best single there
    assert html.index("Chosen prompt right, best single prompt wrong: 6 of 24") < html.index(
        "Chosen prompt wrong, best single prompt right: 6 of 24"
    )
    counted = rows_of(html, "Prompts by who is right")
    for name in ("ppo", "grpo", "dpo"):
        pairs = list(zip(RIGHT["sft"], RIGHT[name], strict=True))
        expected = [sum(pair == each for pair in pairs) for each in ((0, 1), (1, 0), (1, 1), (0, 0))]
        assert counted[name]["text"].split()[1:] == list(map(str, expected))


def test_charts_show_every_recorded_step(make_run: MakeRun) -> None:
    recorded = make_run(seeds=(0, 1)).write().load()
    with house_style():
        charts = draw(recorded)
    (axes,) = charts["rollouts_score_mean"].axes
    drawn = [list(line.get_ydata()) for line in axes.lines]
    for algorithm in ("ppo", "grpo", "dpo"):
        for seed in (0, 1):
            recorded_scores = [row["rollout/score_mean"] for row in history_of(algorithm, seed) if "rollout/score_mean" in row]
            assert recorded_scores in drawn
            assert (len(recorded_scores) == STEPS) == (algorithm != "dpo")  # which is probed now and then
    assert len(drawn) == 2 * 6  # each step, and the moving average
    assert sorted(label.get_text() for label in axes.texts) == ["dpo", "grpo", "ppo"]  # one name for all seeds
    (axes,) = charts["optimization_gold"].axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [STEPS] * 4 + [5] * 2
    diamonds = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "D"]
    assert [[[policy.figures["kl"], policy.figures["sampled_accuracy"]]] for policy in recorded.policies] == diamonds[:-1]
    assert diamonds[-1] == [[0.0, recorded.sft["sampled_accuracy"]]]
    assert {"preference_dpo", "preference_accuracy", "preference_logratio"} <= charts.keys()


def test_who_samples_to_train_on_is_not_who_is_probed(make_run: MakeRun) -> None:
    recorded = make_run().write().load()
    assert {policy.algorithm: on_policy(policy) for policy in recorded.policies} == {"ppo": True, "grpo": True, "dpo": False}
    assert all("rollout/score_mean" in policy.history[0] for policy in recorded.policies)


def test_more_algorithms_than_colours_have_a_row_each(make_run: MakeRun) -> None:
    names = [*(f"method{i}" for i in range(14)), *(f"dpo{i}" for i in range(5))]
    run = make_run(seeds=(0, 1), **dict.fromkeys(names, BETTER)).write()
    with house_style():
        charts = draw(run.load())
    assert {"rollouts_rows", "preference_rows"} <= charts.keys()
    assert not [name for name in charts if name.startswith("optimization_") or name == "rollouts_score_mean"]
    figure = charts["rollouts_rows"]
    assert [text.get_text() for text in figure.texts if text.get_text() in names] == names
    assert len(figure.axes) == 6 * 19
    assert len({axes.get_ylim() for axes in figure.axes[:19]}) == 1  # a column has one scale
    drawn = [list(line.get_ydata()) for line in figure.axes[18].lines]
    assert [row["rollout/score_mean"] for row in history_of("dpo4", 1) if "rollout/score_mean" in row] in drawn
    bottoms = sorted({round(axes.get_position().y0, 6) for axes in figure.axes})
    assert len(bottoms) == 19
    assert len(charts["preference_rows"].axes) == 3 * 5
    html = run.page()
    assert "19 of 19 algorithms beat SFT with 95 % confidence in every seed." in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_models_that_say_the_same_share_a_column(make_run: MakeRun) -> None:
    names = [f"method{i}" for i in range(9)]
    run = make_run(**dict.fromkeys(names, UNCLEAR))
    for row in run.completions:
        if row["model"] in ("sft", "policy.method3.0", "policy.method8.0"):
            row["completion"] = "the same"
    html = run.write().page()
    card = html[html.index("<article>") : html.index("</article>")]
    assert card.count("the same") == 1
    named = Reader(card.replace("<article>", "<table><tr>")).tables[0][0]["text"]
    assert re.search(r"sft ,\s+method3 ,\s+method8", named)
    assert "Further completions: 3" in card  # eight differ, five stand side by side
    assert all(card.count(f"policy.{name}.0 says") == 1 for name in names if name not in ("method3", "method8"))


def test_alarms_are_listed_with_what_they_mean(make_run: MakeRun) -> None:
    run = make_run(seeds=(0, 1)).write()
    quiet = run.page()
    assert "<h3>Alarms</h3><p>None was raised.</p>" in quiet
    assert "Training ended with" not in quiet
    for name, steps, alarm in (("ppo-1", range(12, STEPS), "length_drift"), ("dpo-0", range(5, 11, 5), "kl_budget")):
        history = history_of(name[:-2], int(name[-1]))
        for step in steps:
            history[step][f"alarm/{alarm}"] = 1.0
        write_json(run.folder / f"reports/policy/{name}/history.json", history)
    html = run.page()
    rows = rows_of(html, "Signs that a policy goes wrong")
    assert rows["ppo"]["text"].split()[1:6] == ["1", "length_drift", "12", str(STEPS - 1), "the"]
    assert rows["dpo"]["text"].split()[1:6] == ["0", "kl_budget", "5", "10", "it"]
    assert "much longer or shorter" in rows["ppo"]["text"]
    assert '<a href="#training">alarm</a> in ppo, seed 1 (length_drift).' in html


def test_every_alarm_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(CHECKS)


def test_text_of_models_and_data_is_escaped(make_run: MakeRun) -> None:
    run = make_run()
    attack = '<script>alert("$style")</script><img src=x onerror=alert(1)>'
    for row in run.completions:
        row |= {"completion": attack, "prompt": attack}
    for row in run.choices:
        row["query"] = attack
    run.prompts[0]["prompt"] = attack
    run.verdicts["validate_data"]["expectations"][1] |= {"success": False, "failed": 1, "rows": [{"found": attack}]}
    html = run.write().page()
    assert attack not in html
    assert html.count("&lt;script&gt;alert(&quot;$style&quot;)&lt;/script&gt;") > 20
    assert not {"script", "img", "iframe", "object", "embed", "form"} & set(Reader(html).tags)


def test_nothing_is_fetched(make_run: MakeRun) -> None:
    html = make_run().write().page()
    anchors = {f"#{name}" for name in re.findall(r'id="([^"]+)"', html)}
    references = set(Reader(html).references) - {"data:,"}
    assert references
    assert references <= anchors
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= anchors
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert "default-src 'none'" in html


def test_no_id_is_used_twice(make_run: MakeRun) -> None:
    ids = re.findall(r'\bid="([^"]+)"', make_run().write().page())
    assert len(ids) > 100
    assert len(ids) == len(set(ids))


def test_absent_answers_are_dashes(make_run: MakeRun) -> None:
    run = make_run()
    for found in (run.metrics["sft"], *(seeds["0"] for seeds in run.metrics["policy"].values())):
        for key in [key for key in found if "accuracy" in key]:
            del found[key]
    for row in run.completions:
        row["correct"] = None
    run.metrics["prompt_oirl"], run.prompts, run.choices, run.calibration = {}, [], [], []
    del run.metrics["reward_model"]["gold_correlation"], run.metrics["reward_model"]["accuracy_ceiling"]
    html = run.write().page()
    rows = rows_of(html, "The SFT model and each policy")
    assert rows["ppo"]["text"].split().count("–") == 2 + 2  # two absent figures, and two intervals of others
    assert "have no answers to check" in html
    assert "The score rises most" in html
    assert "only SFT" not in html
    assert "best single" not in html


@pytest.mark.parametrize("who", ["metrics", "validate_data", "validate_preferences"])
def test_contamination_marks_every_table_and_chart(make_run: MakeRun, who: str) -> None:
    run = make_run()
    clean = run.write().page()
    assert "ontaminated" not in clean.replace("Contamination", "")
    if who == "metrics":
        run.metrics["contaminated"] = 1
    else:
        run.verdicts[who]["contaminated"] = True
        found = run.verdicts[who]["expectations"][1]
        found |= {"success": False, "failed": 7, "rows": [{"index": 3, "found": "'seen <b>before</b>'"}]}
    html = run.write().page()
    assert html.index("Contaminated: test prompts were found") < html.index('class="verdict"')
    figures_of_models = html[: min(html.index(f'<section id="{name}">') for name in ("tabular", "validation"))]
    assert figures_of_models.count(f"<figcaption>{LEAK}") == html.count("<figcaption>") - 1 > 15  # that of the small chains
    assert figures_of_models.count(f"<caption>{LEAK}") == figures_of_models.count("<caption>") == 8
    if who != "metrics":
        assert "<code>overlap_corpus.same</code>: 7 of 900, it overlaps (&#x27;seen &lt;b&gt;before&lt;/b&gt;&#x27;)" in html


def test_several_seeds_have_rows_and_a_mean(make_run: MakeRun) -> None:
    run = make_run(seeds=(0, 3), ppo=BETTER, grpo=UNCLEAR).write()
    html = run.page()
    begin = html.index("<table")
    (table,) = Reader(html[begin : html.index("</table>", begin)]).tables
    names = [" ".join(row["text"].split()[:3]) for row in table[3:]]
    assert [name.split(",")[0] for name in names] == ["ppo"] * 3 + ["grpo"] * 3
    assert ["mean" in name for name in names] == [False, False, True] * 2
    found = run.metrics["policy"]["ppo"]
    means = [value for value, _ in table[5]["values"]]
    keys = [key for key in POLICY_KEYS if not key.endswith(("_low", "_high", "_p"))]
    assert means == pytest.approx([(found["0"][key] + found["3"][key]) / 2 for key in keys])
    assert "in every seed; grpo does not." in html
    assert "policy.ppo.0 says" in html
    assert "policy.ppo.3 says" not in html


@pytest.mark.parametrize(
    ("standings", "sentence"),
    [
        ({"ppo": [BETTER], "dpo": [BETTER], "grpo": [UNCLEAR]}, "ppo and dpo beat SFT with 95 % confidence; grpo does not."),
        ({"ppo": [BETTER], "dpo": [WORSE]}, "ppo beats SFT with 95 % confidence; dpo is worse than SFT."),
        ({"ppo": [UNCLEAR], "dpo": [UNCLEAR]}, "No policy beats SFT with 95 % confidence."),
        (
            {"ppo": [BETTER, BETTER], "grpo": [BETTER, UNCLEAR], "dpo": [WORSE, UNCLEAR]},
            "ppo beats SFT with 95 % confidence in every seed; dpo does not; grpo does in 1 of 2 seeds.",
        ),
        (
            {f"m{i}": [BETTER] for i in range(5)} | {f"n{i}": [UNCLEAR] for i in range(6)} | {"dpo": [WORSE]},
            "5 of 12 algorithms beat SFT with 95 % confidence; 6 do not; dpo is worse than SFT.",
        ),
        (
            {f"m{i}": [BETTER, UNCLEAR] for i in range(5)},
            "No policy beats SFT with 95 % confidence in every seed; 5 do in some of the seeds.",
        ),
    ],
)
def test_the_verdict_says_what_the_intervals_say(standings: dict[str, list[tuple[float, float]]], sentence: str) -> None:
    policies = {
        name: [Policy(name, seed, figures(seed, interval), []) for seed, interval in enumerate(intervals)]
        for name, intervals in standings.items()
    }
    assert verdict(policies) == sentence


def test_untrained_base_model_and_sparse_verdict(make_run: MakeRun) -> None:
    """A loaded base model has no history; somebody else's verdict may have no details."""
    run = make_run()
    run.histories["base_model"] = []
    run.verdicts["validate_data"] = {"contaminated": False}
    html = run.write().page()
    assert "imitation_sft-" in html
    assert "imitation_base_model-" not in html
    assert f"passed, {len(expectations())} of {len(expectations())} expectations hold" in html


def test_stale_policies_are_ignored(make_run: MakeRun) -> None:
    run = make_run()
    clean = run.write().page()
    write_json(run.folder / "reports/policy/raft-0/history.json", history_of("raft", 0))
    assert run.page() == clean
