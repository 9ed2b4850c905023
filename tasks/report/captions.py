"""The charts of a section on the page, with a line each on how to read them."""

from matplotlib.figure import Figure

from tasks.report.drawing import inline_svg

CAPTIONS = {
    "rollouts_score_mean": "Of sampled completions; what algorithms that sample maximize.",
    "rollouts_verifier_mean": "What we want; optimized only if the reward says so.",
    "rollouts_kl_mean": "Summed over a completion.",
    "rollouts_completion_length": "A proxy is often raised by length alone.",
    "rollouts_entropy": "Near zero: the policy has stopped exploring.",
    "rollouts_eos_rate": "The others were cut off.",
    "rollouts_rows": "From the first to the last step of each. The number is where the average ends; down a column all have "
    "the same height scale, that of KL a root scale.",
    "preference_rows": "Both sides falling is the known way in which such methods unlearn.",
    "preference_accuracy": "By the policy's implicit reward, in the training batch.",
    "preference_logratio": "Dashed: rejected. Both sides falling is the known way in which such methods unlearn.",
    "optimization_proxy": "Scores of the reward model rise with the distance from the reference.",
    "optimization_gold": "If this falls while the proxy rises, the proxy is being exploited.",
    "optimization_both": "Up and right is honest progress; right and down is over-optimization.",
    "reward_model_loss": "On training pairs.",
    "reward_model_accuracy": "Band: 95 % interval on held-out pairs. Ceiling: a perfect model, since the annotator errs. Words "
    "alone: TF-IDF and logistic regression.",
    "reward_model_reliability": "Held-out pairs, by σ(margin): how often the higher score was preferred. Bars: 95 % intervals.",
    "prompts_success": "Bar: 95 % interval of the gain over the best single prompt. Strokes: one prompt used throughout.",
    "prompts_reliability": "Every pair of query and prompt, by tenths of the predicted chance; larger dots: more calls.",
    "prompts_calibration": "Equally many choices per dot, 95 % intervals. The largest of several guesses promises too much.",
    "tabular_horizon": "95 % intervals over seeds. Beside each name its slope: 2, errors compound; 1, they do not.",
    "study_curve": "Mean over all subsets of K training prompts; bands: standard deviation over the subsets.",
    "proposals_kept": "By what r̂ predicted, on average over queries. Blue: proposed prompts; black: known ones.",
    "prompts_loss": "Of a pair of query and prompt, on training queries.",
}


def grid(charts: dict[str, Figure], section: str) -> str:
    """The section's charts, with a line each on how to read them."""
    figures = []
    for name, figure in charts.items():
        if name.startswith(section):
            drawn = inline_svg(figure, name, description=figure.texts[0].get_text())
            css = ' class="rows"' if name.endswith("_rows") else ""
            figures.append(f"<figure{css}>{drawn}<figcaption>{CAPTIONS.get(name, '')}</figcaption></figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""
