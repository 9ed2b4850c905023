"""The page around the tables of a sweep, in the style of the report of a run."""

from string import Template

from tasks.report.template import STYLE as HOUSE_STYLE

STYLE = (
    HOUSE_STYLE
    + """
.sweep td, .sweep th { white-space: nowrap; } .sweep .lost { white-space: normal; color: var(--warn); max-width: 40em; }
.sweep .better { color: var(--series-2); font-weight: 650; } .sweep .worse { color: var(--warn); font-weight: 650; }
body { max-width: 1400px; } .gains .whisker { width: 120px; } .gains :is(td, th):last-child { text-align: left; }
.gains .reference { background: color-mix(in srgb, var(--faint) 35%, transparent); }
.sweep .whisker { width: 160px; } .sweep tr.next th, .sweep tr.next td { border-bottom-color: var(--soft); }
.sweep th[scope=row] { max-width: 30em; white-space: normal; }
"""
)
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>realign: $title</title>
<style>$style</style>
</head>
<body>
<header>
$banner
<h1>realign, comparison of variants over $title</h1>
<p class="verdict">$verdict</p>
<p class="lead">$summary</p>
</header>
<main>
$sections
</main>
<footer>Made from the recorded files of the variants alone: the same files give the same bytes.</footer>
</body>
</html>
""")
BANNER = (
    '<p class="banner" role="alert"><b>Contaminated: test prompts were found in training data of some variants.</b> Every '
    "figure of theirs is flattered by it; their own reports say what was found.</p>"
)
