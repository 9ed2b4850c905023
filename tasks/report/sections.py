"""What stands on the page, from top to bottom, with the words a newcomer needs to read it."""

from html import escape

from matplotlib.figure import Figure

from tasks.report import examples, gates, tables
from tasks.report.comparison import changed_answers, comparison
from tasks.report.drawing import inline_svg
from tasks.report.figures import on_policy
from tasks.report.recorded import Recorded
from tasks.report.wording import Style, listing

CAPTIONS = {
    "rollouts_score_mean": "Of sampled completions; what the algorithm maximizes.",
    "rollouts_verifier_mean": "What we want; optimized only if the reward says so.",
    "rollouts_kl_mean": "Summed over a completion.",
    "rollouts_completion_length": "A proxy is often raised by length alone.",
    "rollouts_entropy": "Near zero: the policy has stopped exploring.",
    "rollouts_eos_rate": "The others were cut off.",
    "preference_accuracy": "By the policy's implicit reward, in the training batch.",
    "preference_logratio": "Dashed: rejected. Both sides falling is the known way in which such methods unlearn.",
    "optimization_proxy": "Scores of the reward model rise with the distance from the reference.",
    "optimization_gold": "If this falls while the proxy rises, the proxy is being exploited.",
    "optimization_both": "Up and right is honest progress; right and down is over-optimization.",
    "reward_model_loss": "On training pairs.",
    "reward_model_accuracy": "Band: 95 % interval on held-out pairs. Ceiling: a perfect model, since the annotator errs.",
    "prompts_success": "Bar: 95 % interval of the gain over the best single prompt. Strokes: one prompt used throughout.",
    "prompts_calibration": "Equally many choices per dot, 95 % intervals. The largest of several guesses promises too much.",
    "prompts_loss": "Of a pair of query and prompt, on training queries.",
}
REWARD_MODEL: dict[str, tuple[str, Style]] = {
    "accuracy": ("held-out pairs in the annotator's order, %", "percent"),
    "accuracy_ceiling": ("of a perfect reward model, %", "percent"),
    "gold_correlation": ("correlation of score and right answer", "decimal"),
    "held_out_pairs": ("held-out pairs", "count"),
}
PROMPT_OIRL: dict[str, tuple[str, Style]] = {
    "success": ("Prompt-OIRL, %", "percent"),
    "best_prompt_success": ("best single prompt, %", "percent"),
    "gain": ("gain, points", "points"),
    "random_success": ("random prompt, %", "percent"),
    "oracle_success": ("oracle, %", "percent"),
    "accuracy": ("accuracy of predictions, %", "percent"),
    "auc": ("AUC of predictions", "decimal"),
}
BASE_MODEL: dict[str, tuple[str, Style]] = {
    "parameters": ("parameters", "count"),
    "perplexity": ("perplexity", "decimal"),
}
REPRODUCE = """<p><code>dvc repro</code> in the repository makes everything on this page again from the commit,
<code>params.yaml</code> and the data; what has not changed is not run again. <code>runs/&lt;stage&gt;.json</code> names the
MLflow run that made the outputs of each stage, with every metric by step.</p>"""


def sections(recorded: Recorded, charts: dict[str, Figure]) -> dict[str, tuple[str, str]]:
    """Anchor -> (title, HTML)."""
    gate_tables = "".join(gates.gate(name, found) for name, found in recorded.verdicts.items())
    return {
        "policies": ("SFT against each policy", _policies(recorded)),
        "prompts": ("Prompt-OIRL", _prompts(recorded, charts)),
        "reward-model": ("Reward model", _reward_model(recorded, charts)),
        "training": ("Training of the policies", _training(recorded, charts)),
        "imitation": ("Base model and SFT", _imitation(recorded, charts)),
        "validation": ("Data validation", gate_tables),
        "samples": ("Completions to read", _samples(recorded)),
        "reproduce": ("How to reproduce", REPRODUCE),
    }


def _policies(recorded: Recorded) -> str:
    return f"""<p>Each policy starts from the SFT model and is trained for the same task by its own algorithm. Intervals are
over test prompts, each at 95 % taken by itself; they do not say how another training run would end: for that, add seeds.</p>
{comparison(recorded)}{changed_answers(recorded)}"""


def _prompts(recorded: Recorded, charts: dict[str, Figure]) -> str:
    if not recorded.choices:
        return "<p>Nothing is recorded: the queries have no answers to check.</p>"
    return f"""<p>A prompt is an instruction put around a query. From a log of every query under every prompt, Prompt-OIRL
learns to predict which prompt gets a query right; then the model is asked once, with the chosen prompt. Figures are shares of
test queries that are answered correctly.</p>
{tables.key_figures(recorded.prompt_oirl, PROMPT_OIRL)}{_grid(charts, "prompts_")}{tables.prompts(recorded)}
{examples.choices(recorded)}"""


def _reward_model(recorded: Recorded, charts: dict[str, Figure]) -> str:
    return f"""<p>It learns which of two completions is preferred, and its score stands in for the annotator when policies are
trained. The correlation, on fresh samples of the SFT model, is the honest figure: pairs are easier than samples.</p>
{tables.key_figures(recorded.reward_model, REWARD_MODEL)}{_grid(charts, "reward_model_")}"""


def _training(recorded: Recorded, charts: dict[str, Figure]) -> str:
    offline = [name for name, policies in recorded.algorithms.items() if not any(map(on_policy, policies))]
    parts = ["<p>Faint: every recorded step; strong: moving average. One colour per algorithm, the same on the whole page.</p>"]
    parts.append(_grid(charts, "rollouts_"))
    if offline:
        parts.append(f"<h3>Without rollouts: {escape(listing(offline))}</h3>{_grid(charts, 'preference_')}")
    if optimization := _grid(charts, "optimization_"):
        parts.append(
            "<h3>Over-optimization: does the goal follow the proxy?</h3><p>Dots: training steps, darker towards the end. "
            "Diamonds: sampled completions of the test prompts; SFT, in the colour of the text, has a KL of 0.</p>"
            + optimization
        )
    return "".join(parts)


def _imitation(recorded: Recorded, charts: dict[str, Figure]) -> str:
    known = {key: title for key, title in BASE_MODEL.items() if key in recorded.base_model}
    return f"""<p>Negative log-likelihood in nats on training data, on a logarithmic scale.</p>
{tables.key_figures(recorded.base_model, known)}{_grid(charts, "imitation_")}"""


def _samples(recorded: Recorded) -> str:
    return f"""<p>Greedy completions of test prompts, side by side; of several seeds, those of the first. A rule chooses them:
where most policies differ from SFT, in the order of the prompts.</p>{examples.completions(recorded)}"""


def _grid(charts: dict[str, Figure], section: str) -> str:
    """The section's charts, with a line each on how to read them."""
    figures = []
    for name, figure in charts.items():
        if name.startswith(section):
            drawn = inline_svg(figure, name, description=figure.texts[0].get_text())
            figures.append(f"<figure>{drawn}<figcaption>{CAPTIONS.get(name, '')}</figcaption></figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""
