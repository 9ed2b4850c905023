"""What a sweep found: a row per variant for the terminal, for MLflow and for the page, which a child process draws."""

import re
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.engine.console import METRICS, STYLES, console
from flows.engine.sweep.axes import SEED, Sweep, Variant
from flows.engine.sweep.differences import difference_table
from flows.engine.sweep.gains import flat, gain_table
from flows.engine.sweep.mlflow_run import SweepRun
from flows.engine.sweep.variant import Ended, Variants
from tasks.core.config import flatten
from tasks.core.errors import InputError
from tasks.core.files import read_json, write_json

SIDE_BY_SIDE = 8  # policies that fit into the row of a variant
WIDE = 160  # columns: what the table of gains needs


class Findings:
    """ended: how each variant ended, by name; filled in as they do."""

    def __init__(self, sweep: Sweep, variants: Variants):
        self.ended: dict[str, Ended] = {}
        self._sweep = sweep
        self._variants = variants
        self._page = variants.folder / "index.html"

    @property
    def failures(self) -> str:
        """One sentence per variant that failed."""
        lost = [(variant.name, self._of(variant)) for variant in self._sweep.variants]
        return "\n".join(f"{name} {ended.state}: {ended.why}" for name, ended in lost if ended.state != "saved")

    def write_page(self, record: SweepRun) -> None:
        """`python -m tasks.report.sweep.page`, which reads what the variants recorded: flows import no report."""
        receipts = {one.name: self._receipts(one) for one in self._sweep.variants}
        seconds = record.seconds(run_id for found in receipts.values() for run_id in found.values())
        took = {
            name: {stage: seconds[run_id] for stage, run_id in found.items() if run_id in seconds}
            for name, found in receipts.items()
        }
        entries = [
            {"name": one.name, "params": one.shown, "folder": str(self._variants.checkout(one)), "why": self._of(one).why}
            | {"state": self._of(one).state, "experiment": self._of(one).experiment, "seconds": took[one.name]}
            | {"listed": one.listed}
            for one in self._sweep.variants
        ]
        write_json(
            self._variants.folder / "sweep.json",
            {"title": self._sweep.title, "keys": self._sweep.keys, "listed": self._sweep.listed, "base": self._sweep.base}
            | {"seed": SEED, "variants": entries},
        )
        drawn = subprocess.run(
            [sys.executable, "-m", "tasks.report.sweep.page", str(self._variants.folder)], capture_output=True, text=True
        )
        if drawn.returncode:
            said = [line for line in drawn.stderr.splitlines() if line.strip()]
            raise InputError(f"the page could not be drawn: {said[-1] if said else drawn.returncode}")

    def record_in(self, record: SweepRun) -> None:
        rows = []
        metrics = {variant.name: self._metrics(variant) for variant in self._sweep.variants}
        named = dict.fromkeys(key for found in metrics.values() for key in found)
        for variant in self._sweep.variants:
            ended = self._of(variant)
            row: dict[str, Any] = {"variant": variant.name, "state": ended.state, "experiment": ended.experiment}
            row |= {key: str(value) for key, value in variant.shown.items()}
            rows.append(row | {key: metrics[variant.name].get(key) for key in named})
        record.conclude(rows, metrics, flat(self._rows("gains")), self._page)
        record.end("FAILED" if self.failures else "FINISHED")

    def show(self, address: str) -> None:
        """What became of every variant and how right it is, then where to look further."""
        metrics = {variant.name: self._metrics(variant) for variant in self._sweep.variants}
        keys = (key for each in metrics.values() for key in each if re.fullmatch(r"policy\..+\.accuracy", key))
        policies = list(dict.fromkeys(keys))
        right = ["sft.accuracy", *(policies if len(policies) <= SIDE_BY_SIDE else [])]  # the table of gains has them all
        heads = [key.removesuffix(".accuracy").removeprefix("policy.") for key in right]
        table = Table("variant", "state", "seconds", *heads, title="accuracy", title_justify="left", box=None, pad_edge=False)
        for variant in self._sweep.variants:
            ended, found = self._of(variant), metrics[variant.name]
            figures = [f"{found[key]:.3f}" if key in found else "-" for key in right]
            state = Text(ended.state, STYLES["ran" if ended.state == "saved" else "failed"])
            table.add_row(variant.name, state, f"{ended.seconds:.1f}", *figures)
        console.print(table)
        wide = Console(width=max(console.width, WIDE), highlight=False)
        if gains := self._rows("gains"):
            wide.print(gain_table(gains))
        if differences := self._rows("differences"):
            wide.print(difference_table(differences))
        for number, finding in enumerate(self._rows("takeaways"), start=1):
            console.print(f"{number}. {finding['title']}. {finding['verdict']}", soft_wrap=True)
        saved = [ended.experiment for ended in map(self._of, self._sweep.variants) if ended.experiment]
        if saved:
            console.print(f"as experiments: dvc exp show; dvc exp apply {saved[0]}", soft_wrap=True)
        console.print(f"report page: {self._page}", soft_wrap=True)
        console.print(f"side by side in MLflow: {address}", soft_wrap=True)

    def _of(self, variant: Variant) -> Ended:
        return self.ended.get(variant.name, Ended("failed", 0.0, "its task did not end; Prefect says why"))

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """What the page has too: gains, difference_table and takeaways of tasks/report/sweep."""
        file = self._variants.folder / f"{name}.json"
        return list(read_json(file)) if file.exists() else []

    def _receipts(self, variant: Variant) -> dict[str, str]:
        """Of each stage the MLflow run that made its outputs, in this sweep or before it."""
        files = (self._variants.checkout(variant) / "runs").glob("*.json")
        return {file.stem: read_json(file)["run_id"] for file in files} if self._of(variant).state == "saved" else {}

    def _metrics(self, variant: Variant) -> dict[str, float]:
        """What its evaluation wrote, with keys as `dvc metrics show` has them."""
        file = self._variants.checkout(variant) / METRICS
        if self._of(variant).state != "saved" or not file.exists():
            return {}
        return {key: value for key, value in flatten(read_json(file)).items() if isinstance(value, int | float)}
