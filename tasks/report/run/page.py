"""The report: one self-contained page about a run, from recorded files and params.yaml only.

It asks neither MLflow nor any model, fetches nothing, runs no script, and is the same to the byte for the same inputs. It
says in words what the intervals allow to say. The charts also go to MLflow, each under its own name.
"""

from html import escape

from matplotlib.figure import Figure

from tasks.core.config import Config
from tasks.core.run import run
from tasks.core.stage import Stage
from tasks.report.drawing import house_style, mark_contaminated
from tasks.report.run.charts import draw
from tasks.report.run.recorded import Recorded, read
from tasks.report.run.sections import sections
from tasks.report.run.verdicts import summary, verdict
from tasks.report.template import BANNER, PROMPTS_BANNER, fill, marked

CLEAN = "tabular_"  # charts that no data of the run enters


class ReportConfig(Config):
    """params.yaml: report. Nothing to choose so far."""

    namespace = "report"


def report(config: ReportConfig, stage: Stage) -> None:
    recorded = read(stage)
    with house_style():
        charts = draw(recorded)
        stage.out("reports/index.html").write_text(page(recorded, charts), encoding="utf-8")
        for name, figure in charts.items():
            leaked = recorded.contaminated and not name.startswith(CLEAN)
            if leaked or (recorded.prompt_oirl.contaminated and name.startswith("prompts_")):
                mark_contaminated(figure)
            stage.figure(name, figure)


def page(recorded: Recorded, charts: dict[str, Figure]) -> str:
    parts = sections(recorded, charts)
    flattered = {"prompts"} if recorded.prompt_oirl.contaminated else set()
    banner = PROMPTS_BANNER if recorded.prompt_oirl.contaminated else ""
    if recorded.contaminated:
        flattered, banner = parts.keys() - {"validation", "tabular", "params"}, BANNER
    parts |= {key: (parts[key][0], marked(parts[key][1])) for key in flattered}
    return fill(banner, escape(verdict(recorded.algorithms)), summary(recorded), parts)


if __name__ == "__main__":
    run(ReportConfig, report)
