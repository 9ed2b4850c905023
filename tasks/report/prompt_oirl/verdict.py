"""What Prompt-OIRL has shown, in sentences."""

from tasks.report.prompt_oirl.recorded import PromptOirl
from tasks.report.wording import data, share


def prompt_verdict(recorded: PromptOirl) -> str:
    """Whether choosing per query beats the best single prompt, by the 95 % interval of the gain."""
    figures = recorded.figures
    if "gain" not in figures:
        return "Prompt-OIRL has nothing to learn from."
    if figures["gain_low"] > 0:
        return "A prompt chosen for each query beats the best single prompt with 95 % confidence."
    if figures["gain_high"] < 0:
        return "A prompt chosen for each query is worse than the best single prompt."
    return "A prompt chosen for each query is not shown to beat the best single prompt."


def prompt_summary(recorded: PromptOirl) -> str:
    """What choosing the prompt is worth; HTML, nothing where nothing was learned."""
    figures = recorded.figures
    if "success" not in figures:
        return ""
    leak = " Its test queries are among its training queries, which flatters both." if recorded.contaminated else ""
    return (
        f"With a prompt chosen for each query by Prompt-OIRL the model answers {share(figures['success'])} "
        f"correctly, with the best single prompt {share(figures['best_prompt_success'])} (gain "
        f"{data(figures['gain'], 'points')} points, 95 % interval {data(figures['gain_low'], 'points')} to "
        f"{data(figures['gain_high'], 'points')}).{leak}"
    )
