"""Each model against each on the same prompts, and right answers by kind of problem: the tables beneath the comparison."""

from html import escape

from tasks.core.files import Row
from tasks.report.run.recorded import Recorded
from tasks.report.tables import name_of, row, table
from tasks.report.wording import MISSING, data, interval

SURE = 0.05


def win_matrix(recorded: Recorded) -> str:
    """Row against column; nothing where none was recorded."""
    if not recorded.matrix:
        return ""
    found: dict[tuple[str, str], Row] = {}
    for each in recorded.matrix:
        found[each["model"], each["against"]] = each
        low, high = 1 - each["win_rate_high"], 1 - each["win_rate_low"]
        other_way = {"win_rate": 1 - each["win_rate"], "win_rate_low": low, "win_rate_high": high}
        found[each["against"], each["model"]] = each | other_way
    names = names_of(recorded)
    rows = [
        row([name, *(_win(found[model, other]) if (model, other) in found else MISSING for other in names)])
        for model, name in names.items()
    ]
    several = any(len(policies) > 1 for policies in recorded.algorithms.values())
    seeds = " Of several seeds each is a model of its own." if several else ""
    caption = f"Win rates, paired on {recorded.matrix[0]['prompts']} test prompts"
    return f"""<h3>Each model against each</h3><p>How often, in %, a sampled completion of the row's model is better than that
of the column's; ties count half. Beneath it the 95 % interval over prompts and p, two-sided, after Holm's correction for all
pairs; in colour where p is at most {SURE}. All this speaks of these models.{seeds}</p>
{table(["wins against", *names.values()], rows, caption, "matrix")}"""


def _win(each: Row) -> str:
    sure = each["p_holm"] <= SURE and each["win_rate"] != 0.5
    css = ("right" if each["win_rate"] > 0.5 else "wrong") if sure else ""
    beneath = f"<small>{interval(each, 'win_rate', 'percent')}</small><small>p {data(each['p_holm'], 'p')}</small>"
    return f'<span class="{css}">{data(each["win_rate"], "percent")}</span>{beneath}'


def kind_table(recorded: Recorded) -> str:
    """Right answers by kind of problem; nothing where problems have no kind."""
    if not recorded.kinds:
        return ""
    found = {(each["model"], each["kind"]): each for each in recorded.kinds}
    sizes = {each["kind"]: each["prompts"] for each in recorded.kinds}
    names = names_of(recorded)
    rows = [
        row([name, *(_share(found[model, kind]) if (model, kind) in found else MISSING for kind in sizes)])
        for model, name in names.items()
    ]
    heads = ["", *(f"{escape(kind)}, {size} prompts" for kind, size in sizes.items())]
    caption = "Right answers by kind of problem, %: sampled at temperature 1 with its 95 % interval over prompts, then greedy"
    return f"<h3>By kind of problem</h3>{table(heads, rows, caption, 'kinds')}"


def _share(each: Row) -> str:
    greedy = f"<small>greedy {data(each['accuracy'], 'percent')}</small>"
    return f"{data(each['sampled_accuracy'], 'percent')}<small>{interval(each, 'sampled_accuracy', 'percent')}</small>{greedy}"


def names_of(recorded: Recorded) -> dict[str, str]:
    """Every model of an evaluation's tables, by the name that the page gives it, in its colour."""
    names = {"sft": '<span class="name">sft</span>'}
    for index, policies in enumerate(recorded.algorithms.values()):
        for policy in policies:
            label = f"{policy.algorithm}, seed {policy.seed}" if len(policies) > 1 else policy.algorithm
            names[policy.model] = name_of(label, index)
    return names
