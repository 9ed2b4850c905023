"""The report on Prompt-OIRL alone: one self-contained page about a log, its gate and the choices, without the rest of a run.

For an imported log there is no need to train anything else. From recorded files only, like the whole report.
"""

from html import escape

from tasks.core.config import Config
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.report import gates
from tasks.report.drawing import house_style
from tasks.report.prompt_oirl.charts import charts
from tasks.report.prompt_oirl.recorded import PromptOirl, read_prompt_oirl
from tasks.report.prompt_oirl.section import section
from tasks.report.prompt_oirl.study import Study, read_study, study_section
from tasks.report.prompt_oirl.verdict import prompt_summary, prompt_verdict
from tasks.report.template import PROMPTS_BANNER, fill, marked


class ReportPromptsConfig(Config):
    """params.yaml: report_prompts. Nothing to choose so far."""

    namespace = "report_prompts"


def report(config: ReportPromptsConfig, stage: Stage) -> None:
    recorded, study = read_prompt_oirl(stage), read_study(stage)
    with house_style():
        stage.out("reports/prompts.html").write_text(page(recorded, study), encoding="utf-8")


def page(recorded: PromptOirl, study: Study) -> str:
    drawn = {name: figure for name, figure in charts(recorded).items() if figure}
    content = section(recorded, drawn)
    parts = {"prompts": ("Prompt-OIRL", marked(content) if recorded.contaminated else content)}
    if study.figures:
        parts["study"] = ("Experiments on the whole log", study_section(study))
    parts["validation"] = ("Data validation", gates.gate("validate_prompt_log", recorded.verdict))
    banner = PROMPTS_BANNER if recorded.contaminated else ""
    return fill(banner, escape(prompt_verdict(recorded)), prompt_summary(recorded), parts)


if __name__ == "__main__":
    run(ReportPromptsConfig, report)
