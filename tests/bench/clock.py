"""What the flow costs beyond the work itself: `make bench-clock`, a quarter of an hour on a machine with nothing else to do.

Every figure is set against a floor measured in the same run: DVC's own check in process, Prefect's own empty flow, the
stages' own work. Medians where more than one run is named.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.flows.rounds import lost_entries
from tests.flows.servers import answers
from tests.processes import ENVIRONMENT, free_port, wait_until
from tests.smoke.checkout import SMALL, assign, checkout

RUNS = 5
LOAD = """
import json, sys, time
from pathlib import Path
{imports}
if __name__ == "__main__":
    number = sys.argv[1]
    began = time.perf_counter()
    {work}
    Path(f"out/{{number}}").parent.mkdir(exist_ok=True)
    Path(f"out/{{number}}").write_text(json.dumps(time.perf_counter() - began))
"""
MATRIX = """
stages:
  load:
    matrix:
      number: [{numbers}]
    cmd: python -m load ${{item.number}}
    deps: [load.py]
    outs: ["out/${{item.number}}"]
"""
IN_PROCESS = """
import time
from dvc.repo import Repo
with Repo() as repo:
    repo.status()
    began = time.perf_counter()
    repo.reproduce(dry=True)
print(time.perf_counter() - began)
"""
EMPTY_FLOW = """
import time
from flows.engine.api import prefect_api
from prefect import flow
@flow
def empty(): pass
began = time.perf_counter()
with prefect_api(watched=False):
    empty()
print(time.perf_counter() - began)
"""
PLAN = """
import time
from flows.engine.graph import open_repo, read_graph
from flows.engine.plan import make_plan
began = time.perf_counter()
with open_repo() as repo:
    make_plan(read_graph(repo))
print(time.perf_counter() - began)
"""


def main() -> None:
    table = Table("what", "measured", "set against", "ratio or bound", title="the clock")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for measure in (no_op_flow, overhead_of_a_stage, eight_stages_on_two_slots, fifty_rounds, wide_matrix):
            for row in measure(folder / measure.__name__):
                table.add_row(*row)
                print(" | ".join(row), flush=True)
    Console(width=160).print(table)


def no_op_flow(folder: Path) -> list[tuple[str, ...]]:
    """The default pipeline, its stages made small, with nothing to do."""
    folder.mkdir()
    checkout(folder)
    assign(folder, SMALL.split())
    run(folder, "-m", "flows.align")
    check = median(lambda: printed(folder, IN_PROCESS))
    alone = median(lambda: seconds(folder, "-m", "flows.align"))
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    home = environment(PREFECT_HOME=str(folder / ".scratch/prefect"))
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder, env=home, **silent) as server:
        wait_until(lambda: answers(f"{url}/health"))
        floor = median(lambda: printed(folder, EMPTY_FLOW, PREFECT_API_URL=url))
        inside = median(lambda: flow_seconds(folder, url))
        whole = median(lambda: seconds(folder, "-m", "flows.align", PREFECT_API_URL=url))
        for process in psutil.Process(server.pid).children(recursive=True):
            process.terminate()
        server.terminate()
    against = f"DVC's check {check:.2f} s + Prefect's empty flow {floor:.2f} s"
    return [
        ("no-op flow of 15 stages, in its process", f"{inside:.2f} s", against, f"{inside / (check + floor):.2f} (2.5)"),
        ("no-op flow, whole process, no server", f"{alone:.2f} s", "", "(5 s)"),
        ("no-op flow, whole process, with a server", f"{whole:.2f} s", "", "(4 s)"),
    ]


def flow_seconds(folder: Path, url: str) -> float:
    """From the end of the imports to the end of the flow."""
    script = (
        "import sys, time, flows.align as align; sys.argv = ['align']; began = time.perf_counter()\n"
        "try: align.main()\n"
        "finally: print(time.perf_counter() - began)"
    )
    return printed(folder, script, PREFECT_API_URL=url)


def overhead_of_a_stage(folder: Path) -> list[tuple[str, ...]]:
    """Five stages in a row that import what a training stage imports, record an MLflow run, and then sleep."""
    rows = []
    imports = "import torch, transformers, mlflow"
    project(folder, 5, "time.sleep(1.0)", imports, chained=True)
    whole = seconds(folder, "-m", "flows.align")
    said = re.findall(r"│ ran in ([\d.]+) s", (folder / "flow.log").read_text())
    stages = [float(taken) for taken in said]
    plain = seconds(folder, "-m", "dvc", "repro", "--force")
    rows.append((
        "overhead of a stage that runs, imports included",
        f"{statistics.mean(stages) - 1:.2f} s (flow)",
        f"{plain / 5 - 1:.2f} s (dvc repro)",
        f"whole flow {whole:.1f} s for 5 s of work (2 s a stage)",
    ))  # fmt: skip
    return rows


def eight_stages_on_two_slots(folder: Path) -> list[tuple[str, ...]]:
    """Equal work that keeps a core busy, two at a time."""
    project(folder, 8, "for _ in range(400_000_000): pass", "")
    alone = seconds(folder, "-m", "load", "0")
    os.remove(folder / "out/0")
    run(folder, "-m", "flows.align")
    times = [float((folder / f"out/{number}").read_text()) for number in range(8)]
    log = (folder / "flow.log").read_text()
    took = span(log)
    ideal = sum(times) / 2
    return [(
        "8 equal CPU-bound stages on 2 slots, first start to last end",
        f"{took:.1f} s",
        f"{ideal:.1f} s, half of what they worked ({alone:.1f} s one alone)",
        f"{took / ideal:.3f} (1.10)",
    )]  # fmt: skip


def span(log: str) -> float:
    """Seconds from the first stage's start to the last stage's end, which the bench has stamped on each line."""
    stamps = [float(line.split(" ", 1)[0]) for line in log.splitlines() if "│ starts" in line or "│ ran in" in line]
    return max(stamps) - min(stamps)


def fifty_rounds(folder: Path) -> list[tuple[str, ...]]:
    """Eight stages that run and are committed at the same time."""
    folder.mkdir()
    return [("entries of dvc.lock lost in 50 rounds of 8 stages", str(lost_entries(folder, 50)), "", "(0)")]


def wide_matrix(folder: Path) -> list[tuple[str, ...]]:
    """Matrices of stages that are up to date: how long the plan takes, and the whole flow that then does nothing."""
    found = {}
    for count in (125, 250, 500):
        here = folder / str(count)
        project(here, count, "pass", "")
        for number in range(count):
            (here / "out").mkdir(exist_ok=True)
            (here / f"out/{number}").write_text("0")
        subprocess.run([sys.executable, "-m", "dvc", "commit", "-q", "-f"], cwd=here, env=environment(), check=True)
        found[count] = (printed(here, PLAN), seconds(here, "-m", "flows.align"))
    plans = " / ".join(f"{plan:.2f}" for plan, _ in found.values())
    flows = " / ".join(f"{flow:.1f}" for _, flow in found.values())
    return [
        ("plan of 125 / 250 / 500 stages", f"{plans} s", "", "(5 s for 500)"),
        ("no-op flow of 125 / 250 / 500 stages", f"{flows} s", "125 stages", f"{found[500][1] / found[125][1]:.2f} (4)"),
    ]


def project(folder: Path, count: int, work: str, imports: str, chained: bool = False) -> None:
    """A DVC project of equal stages, side by side or one after the other."""
    folder.mkdir(parents=True)
    (folder / "load.py").write_text(LOAD.format(work=work, imports=imports))
    text = MATRIX.format(numbers=", ".join(str(number) for number in range(count)))
    if chained:
        text = "stages:\n" + "".join(
            f"  load{n}:\n    cmd: python -m load {n}\n    deps: [{', '.join(['load.py', *([f'out/{n - 1}'] if n else [])])}]\n"
            f"    outs: [out/{n}]\n"
            for n in range(count)
        )
    (folder / "dvc.yaml").write_text(text)
    (folder / "params.yaml").write_text("runtime: {seed: 0, threads: 1, device: cpu}\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, env=environment(), check=True)


def environment(**says: str) -> dict[str, str]:
    return ENVIRONMENT | {"DVC_NO_ANALYTICS": "1"} | says


def run(folder: Path, *arguments: str, **says: str) -> None:
    """Its output goes to flow.log, each line with the time at which it came."""
    command = [sys.executable, *arguments]
    with (
        (folder / "flow.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment(**says), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(f"{time.time():.2f} {line}")
    if process.returncode:
        sys.exit((folder / "flow.log").read_text())


def seconds(folder: Path, *arguments: str, **says: str) -> float:
    began = time.perf_counter()
    run(folder, *arguments, **says)
    return time.perf_counter() - began


def printed(folder: Path, script: str, **says: str) -> float:
    """The last line that a script prints, a number."""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment(**says), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split()[-1])


def median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(RUNS))


if __name__ == "__main__":
    main()
