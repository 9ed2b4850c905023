"""Tables as HTML, and lists of single figures. Every text of data or a model passes `escape`."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tasks.report.drawing import variable
from tasks.report.recorded import Figures
from tasks.report.wording import Style, data, interval


def table(head: Sequence[str], rows: Iterable[str], caption: str = "", css: str = "") -> str:
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    title = f"<caption>{caption}</caption>" if caption else ""
    body = "".join(rows)
    return f'<div class="wide"><table class="{css}">{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def row(cells: Iterable[str], css: str = "") -> str:
    first, *others = cells
    return f'<tr class="{css}"><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>\n'


def name_of(label: str, index: int) -> str:
    """An algorithm in its colour, the same as in every chart."""
    return f'<span class="name" style="color:var(--{variable(index)})">{escape(label)}</span>'


def key_figures(figures: Figures, names: Mapping[str, tuple[str, Style]]) -> str:
    """A short list of figures, with intervals where recorded; absent ones as a dash."""
    rows = []
    for key, (title, style) in names.items():
        between = interval(figures, key, style)
        rows.append(f"<div><dt>{title}</dt><dd>{data(figures.get(key), style)}<small>{between}</small></dd></div>")
    return f'<dl class="figures">{"".join(rows)}</dl>'
