"""The page around the figures: string.Template, so that `$name` is filled in once and nothing in data can be a placeholder.

No script and nothing to fetch: the content security policy forbids what escaping should already prevent.
"""

from string import Template

from tasks.report.drawing import DARK, LIGHT


def variables(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


STYLE = (
    f"""
:root {{ color-scheme: light dark; --sans: "Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "Liberation Serif", serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
@media print {{ :root {{ {variables(LIGHT)} --paper: #fff; }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1140px; padding: 2.5rem 2rem 5rem; background: var(--paper); color: var(--ink);
  font: .94rem/1.55 var(--sans); }
h1, h2, .verdict { font-family: var(--serif); font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { margin: 0; font-size: 1.05rem; color: var(--soft); letter-spacing: .01em; }
.verdict { font-size: 2.1rem; margin: .5rem 0 .8rem; max-width: 32em; }
h2 { font-size: 1.5rem; margin: 3.6rem 0 .3rem; padding-top: 1.1rem; border-top: 1px solid var(--faint); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46em; margin: .5rem 0; }
.lead { font-size: 1.08rem; }
.note, .notes, small, figcaption, caption, nav { color: var(--soft); }
small { display: block; font-size: .8em; line-height: 1.35; font-weight: 400; white-space: nowrap; }
a { color: inherit; text-underline-offset: .2em; text-decoration-color: var(--faint); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-top: 1.2rem; font-size: .9rem; }
code, .data { font-family: var(--mono); font-size: .88em; }
.data { overflow-wrap: anywhere; white-space: pre-wrap; }
:is(td, th) > .data { display: inline-block; min-width: 15rem; }
q.data::before, q.data::after { content: none; }
.banner { border: 2px solid var(--warn); border-radius: 6px; padding: .9rem 1.2rem; margin: 0 0 1.6rem; font-size: 1.05rem;
  max-width: none; }
.banner b, .leak, .bad, .wrong { color: var(--warn); font-weight: 600; }
.right { color: var(--series-2); font-weight: 600; }
.wide { overflow-x: auto; margin: 1.1rem 0; }
table { min-width: min(100%, 33rem); border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .45rem; font-size: .9rem; }
th, td { text-align: right; vertical-align: top; padding: .42rem .85rem .42rem 0; border-bottom: 1px solid var(--faint); }
thead th { font-weight: 500; color: var(--soft); font-size: .85rem; vertical-align: bottom; white-space: nowrap; }
th:first-child, .prompts :is(th, td):nth-child(2), .choices :is(th, td),
.fine :is(th, td) { text-align: left; font-weight: 400; }
.name { font-weight: 650; white-space: nowrap; }
.comparison { width: 100%; } .comparison .whisker { width: 130px; } .comparison .whisker text { font-size: 18px; }
.comparison .mean th, .comparison .mean td { border-bottom-color: var(--soft); }
.comparison .seed .name { font-weight: 400; }
.comparison .reference { background: color-mix(in srgb, var(--faint) 35%, transparent); }
.comparison th:first-child { padding-left: .5rem; }
.choices .group th { padding-top: 1rem; color: var(--soft); }
.choices th[scope=row] { max-width: 34em; }
.alarms :is(td, th):is(:nth-child(3), :last-child) { text-align: left; }
.params { min-width: 0; } .params :is(th, td) { text-align: left; padding-block: .15rem; }
.params .data { min-width: 0; max-width: 26rem; }
.fine { font-size: .8rem; }
.missing { color: var(--soft); }
.whisker { width: 200px; display: block; overflow: visible; }
.whisker path { stroke: currentColor; stroke-width: 2; opacity: .55; fill: none; }
.whisker path.half { stroke: var(--soft); stroke-width: 1; opacity: .8; }
.whisker circle { fill: currentColor; stroke: var(--paper); stroke-width: 1.2; }
.whisker text { font-size: 11px; fill: var(--soft); }
dl { margin: 1rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.notes { columns: 2 24em; column-gap: 2.4rem; font-size: .82rem; }
.notes div { break-inside: avoid; margin-bottom: .35rem; }
.notes dt { display: inline; font-weight: 600; color: var(--ink); }
.notes dt::after { content: ": "; }
.notes dd { display: inline; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; font-variant-numeric: tabular-nums; }
.figures dt { font-size: .82rem; }
.figures dd { font-size: 1.25rem; }
.figures dd small { font-size: .82rem; min-height: 1.3em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 1.4rem 1.6rem; margin: 1.2rem 0; }
figure { margin: 0; break-inside: avoid; }
figure.rows { grid-column: 1 / -1; overflow-x: auto; } figure.rows svg { min-width: 900px; }
figure svg { width: 100%; height: auto; display: block; overflow: visible; }
figcaption { font-size: .82rem; line-height: 1.4; padding-right: 2rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 3.5rem; }
article { border: 1px solid var(--faint); border-radius: 6px; padding: .8rem 1rem; margin: .8rem 0; break-inside: avoid; }
article > p { margin: 0 0 .3rem; max-width: none; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: .8rem 1.2rem; margin-top: .7rem; }
.answers p { margin: .25rem 0 0; max-height: 16em; overflow: auto; }
.answers .name { white-space: normal; }
.answers small { display: inline; margin-left: .5em; }
summary { cursor: pointer; color: var(--soft); margin: .5rem 0; }
footer { margin-top: 4rem; color: var(--soft); font-size: .85rem; }
@page { margin: 14mm; }
@media (max-width: 600px) { body { padding: 1.4rem 1rem 3rem; } .verdict { font-size: 1.5rem; } figcaption { padding: 0; }
  caption { position: sticky; left: 0; max-width: calc(100vw - 2rem); } .charts { grid-template-columns: minmax(0, 1fr); }
  :is(.comparison, .matrix, .kinds, .sweep) :is(th:first-child) { position: sticky; left: 0; background: var(--paper);
  max-width: 34vw; } :is(.comparison, .matrix, .kinds, .sweep) th:first-child small { white-space: normal; }
  .answers { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 1000px) { body { padding-inline: 1.2rem; } .whisker { width: 120px; }
  .whisker text { font-size: 18px; } .whisker circle { r: 6px; } .whisker path { stroke-width: 3.3; }
  th, td { padding-right: .6rem; } }
@media print { html { font-size: 68%; } body { padding: 0; max-width: none; } nav, summary { display: none; }
  .wide, .answers p { overflow: visible; max-height: none; } h2, h3, h3 + p, caption { break-after: avoid; }
  tr { break-inside: avoid; } .charts { grid-template-columns: repeat(3, 1fr); } }
"""
)

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>realign: $verdict</title>
<style>$style</style>
</head>
<body>
<header>
$banner
<h1>realign, report of a run</h1>
<p class="verdict">$verdict</p>
<p class="lead">$summary</p>
<nav aria-label="Sections">$navigation</nav>
</header>
<main>
$sections
</main>
<footer>Made from <code>params.yaml</code> and files below <code>reports/</code>: the same files give the same bytes.</footer>
</body>
</html>
""")

BANNER = (
    '<p class="banner" role="alert"><b>Contaminated: test prompts were found in the training data.</b> Every figure on this '
    "page is flattered by it and must not be compared with others. What was found stands under "
    '<a href="#validation">data validation</a>.</p>'
)
LEAK = '<span class="leak">Contaminated.</span> '
PROMPTS_BANNER = (
    '<p class="banner" role="alert"><b>Contaminated: Prompt-OIRL was tested on queries of its training log.</b> Its '
    "figures are flattered by it and must not be compared with others. What was found stands under "
    '<a href="#validation">data validation</a>.</p>'
)


def fill(banner: str, verdict: str, summary: str, parts: dict[str, tuple[str, str]]) -> str:
    """The page around its sections. parts: anchor -> (title, HTML)."""
    return PAGE.substitute(
        banner=banner,
        verdict=verdict,
        summary=summary,
        style=STYLE,
        navigation="".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in parts.items()),
        sections="".join(
            f'<section id="{key}"><h2>{title}</h2>{content}</section>\n' for key, (title, content) in parts.items()
        ),
    )


def marked(content: str) -> str:
    """Every table and every chart that is flattered says so."""
    return content.replace("<caption>", f"<caption>{LEAK}").replace("<figcaption>", f"<figcaption>{LEAK}")
