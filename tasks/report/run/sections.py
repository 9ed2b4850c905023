"""What stands on the page, from top to bottom, with the words a newcomer needs to read it."""

from html import escape

from matplotlib.figure import Figure

from tasks.core.files import Row
from tasks.report import gates, tables
from tasks.report.captions import grid
from tasks.report.prompt_oirl import proposals, section
from tasks.report.recorded import Figures
from tasks.report.run import examples, params, tabular
from tasks.report.run.alarm_table import alarm_table
from tasks.report.run.charts import on_policy, too_many
from tasks.report.run.comparison import changed_answers, comparison
from tasks.report.run.optional_figures import refusals, text_metrics
from tasks.report.run.overoptimization import budget_table
from tasks.report.run.recorded import Recorded
from tasks.report.run.win_matrix import kind_table, win_matrix
from tasks.report.wording import Style, data, interval, listing

REWARD_MODEL: dict[str, tuple[str, Style]] = {
    "accuracy": ("held-out pairs in the annotator's order, %", "percent"),
    "accuracy_ceiling": ("of a perfect reward model, %", "percent"),
    "baseline_accuracy": ("of the words alone (TF-IDF, logistic regression), %", "percent"),
    "longer_wins": ("of “the longer one”, %", "percent"),
    "gold_correlation": ("correlation of score and right answer", "decimal"),
    "length_correlation": ("of score and length", "decimal"),
    "ece": ("expected calibration error", "decimal"),
    "held_out_pairs": ("held-out pairs", "count"),
}
SOMETIMES: dict[str, tuple[str, Style]] = {  # by the params of reward_model
    "feedback_agreement": ("held-out judgements in the same order, %", "percent"),
    "step_accuracy": ("held-out steps judged rightly, %", "percent"),
    "step_majority": ("by the best constant guess, %", "percent"),
    "step_auc": ("area under the ROC curve of steps", "decimal"),
    "ensemble_accuracy": ("of the ensemble's mean score, %", "percent"),
    "disagreement": ("deviation of its members' scores", "decimal"),
    "disagreement_auc": ("of disagreement, to tell wrong pairs: AUC", "decimal"),
}
JUDGE: dict[str, tuple[str, Style]] = {  # of an AI judge, where one was asked
    "judge/gold_agreement": ("the truly better one chosen, % of pairs", "percent"),
    "judge/self_agreement": ("the same verdict when asked again, %", "percent"),
    "judge/position_bias": ("verdicts that the order decided, %", "percent"),
    "judge/first_position": ("mean probability of the first, %", "percent"),
    "judge/questions": ("questions, each in both orders", "count"),
    "judge/no_verdict": ("of those without a verdict", "count"),
    "judge/undecided": ("of those undecided", "count"),
    "judge/prompt_tokens": ("tokens that it read", "count"),
    "judge/completion_tokens": ("tokens that it wrote", "count"),
}
GROUPS = {"kind": "kind of pair", "margin": "size of the margin", "gap": "annotator's gap"}
BASE_MODEL: dict[str, tuple[str, Style]] = {
    "parameters": ("parameters", "count"),
    "perplexity": ("perplexity", "decimal"),
}
REPRODUCE = """<p><code>dvc repro</code> in the repository makes everything on this page again from the commit,
<code>params.yaml</code> and the data; what has not changed is not run again. <code>runs/&lt;stage&gt;.json</code> names the
MLflow run that made the outputs of each stage, with every metric by step.</p>"""


def sections(recorded: Recorded, charts: dict[str, Figure]) -> dict[str, tuple[str, str]]:
    """Anchor -> (title, HTML)."""
    proposed = {"proposals": ("Proposed prompts", proposals.section(recorded.proposals, charts))}
    gate_tables = "".join(gates.gate(name, found) for name, found in recorded.verdicts.items())
    return {
        "policies": ("SFT against each policy", _policies(recorded)),
        "prompts": ("Prompt-OIRL", section.section(recorded.prompt_oirl, charts)),
        **(proposed if recorded.proposals.candidates else {}),
        "reward-model": ("Reward model", _reward_model(recorded, charts)),
        "training": ("Training of the policies", _training(recorded, charts)),
        "imitation": ("Base model and SFT", _imitation(recorded, charts)),
        "tabular": ("Imitation on small chains", tabular.section(recorded, charts)),
        "validation": ("Data validation", gate_tables),
        "samples": ("Completions to read", _samples(recorded)),
        "params": ("Params", params.section(recorded)),
        "reproduce": ("How to reproduce", REPRODUCE),
    }


def _policies(recorded: Recorded) -> str:
    return f"""<p>Each policy starts from the SFT model and is trained for the same task by its own algorithm. Intervals are
over test prompts, each at 95 % taken by itself; they do not say how another training run would end: for that, add seeds.</p>
{comparison(recorded)}{kind_table(recorded)}{win_matrix(recorded)}{refusals(recorded)}{text_metrics(recorded)}
{changed_answers(recorded)}"""


def _reward_model(recorded: Recorded, charts: dict[str, Figure]) -> str:
    names = REWARD_MODEL | {key: title for key, title in SOMETIMES.items() if key in recorded.reward_model}
    figures = _judge(recorded.feedback) + tables.key_figures(recorded.reward_model, names)
    return f"""<p>It learns which of two completions is preferred, and its score stands in for the annotator when policies are
trained. The correlation, on fresh samples of the SFT model, is the honest figure: pairs are easier than samples.</p>
{figures}{grid(charts, "reward_model_")}{_agreement(recorded.reward_agreement)}"""


def _judge(figures: Figures) -> str:
    """Nothing of annotators and of data sets."""
    if "judge/questions" not in figures:
        return ""
    return f"""<p>The pairs are those of an AI judge, who was asked in both orders. Its errors are not mere noise: a reward
model that learns them too can agree with it more often than a perfect one would.</p>{tables.key_figures(figures, JUDGE)}"""


def _agreement(groups: list[Row]) -> str:
    """Where the reward model agrees with held-out pairs, and where not; nothing if it was not recorded."""
    rows = [
        tables.row([
            f"{GROUPS[row['by']]}: {escape(row['group'])}",
            str(row["pairs"]),
            f"{data(row['accuracy'], 'percent')}<small>{interval(row, 'accuracy', 'percent')}</small>",
        ])
        for row in groups
    ]  # fmt: skip
    return tables.table(["held-out pairs by", "pairs", "in the annotator's order, %"], rows, "Agreement") if rows else ""


def _training(recorded: Recorded, charts: dict[str, Figure]) -> str:
    offline = [name for name, policies in recorded.algorithms.items() if not any(map(on_policy, policies))]
    colours = "" if too_many(recorded) else " One colour per algorithm, the same on the whole page."
    parts = [f"<p>Faint: every recorded step; strong: moving average.{colours}</p>", alarm_table(recorded)]
    parts.append(f"<h3>Completions while they train</h3>{grid(charts, 'rollouts_')}")
    if offline:
        parts.append(
            f"<h3>On recorded data: {escape(listing(offline))}</h3><p>They sample nothing to train on. Above, "
            f"their completions are those of a few validation prompts, sampled now and then.</p>{grid(charts, 'preference_')}"
        )
    if optimization := grid(charts, "optimization_"):
        parts.append(
            "<h3>Over-optimization: does the goal follow the proxy?</h3><p>Dots: training steps, darker towards the end. "
            "Diamonds: sampled completions of the test prompts; SFT, in the colour of the text, has a KL of 0. The dotted line "
            "is the best, by score, of n samples of SFT on the test prompts, whose KL is log n − (n−1)/n: what the reward "
            "model can do without any training.</p>" + optimization + budget_table(recorded)
        )
    return "".join(parts)


def _imitation(recorded: Recorded, charts: dict[str, Figure]) -> str:
    known = {key: title for key, title in BASE_MODEL.items() if key in recorded.base_model}
    return f"""<p>Negative log-likelihood in nats on training data, on a logarithmic scale.</p>
{tables.key_figures(recorded.base_model, known)}{grid(charts, "imitation_")}"""


def _samples(recorded: Recorded) -> str:
    return f"""<p>Greedy completions of test prompts, side by side; of several seeds, those of the first. Models that say the
same share a column. A rule chooses the prompts: where most policies differ from SFT, in their order.</p>
{examples.completions(recorded)}"""
