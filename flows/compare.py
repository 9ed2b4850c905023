"""A sweep: many params.yaml side by side, compared in one MLflow view and on one page.

    python -m flows.compare --set sft.learning_rate=1e-3,3e-3 --set policy.ppo.kl_coef=0.05,0.1     every combination
    python -m flows.compare --seeds 0,1,2                      whole repetitions; of every combination, if --set is given too
    python -m flows.compare --list variants.yaml               of `name: {sft.learning_rate: 1e-3, ...}` for each variant
    python -m flows.compare --seeds 0,1,2 --set policy.algorithms=all     every algorithm that has a namespace: `make zoo`

Each variant runs as `python -m flows.align` in a scratch checkout of HEAD and what was changed since, and ends as a DVC
experiment; nothing of the working tree changes. What variants share is computed once: they have one cache and one set of
slots. One that fails stops no other. Run again, it continues where it stopped.
"""

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.engine.api import follow_parent, prefect_api
from flows.engine.console import line_printer
from flows.engine.git import git
from flows.engine.graph import open_repo, read_graph
from flows.engine.locks import only_one
from flows.engine.slots import Slots
from flows.engine.sweep.axes import Sweep, Variant, in_order, make_sweep, read_list, read_set
from flows.engine.sweep.findings import Findings
from flows.engine.sweep.mlflow_run import LOCK, SWEEPS, SweepRun
from flows.engine.sweep.variant import Start, Variants
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.stage import WRITTEN


@flow(name="compare", flow_run_name=lambda: f"compare {flow_run.parameters['name'] or 'variants'}")
def compare(
    sets: dict[str, list[Any]] | None = None,
    seeds: list[int] | None = None,
    variants: dict[str, dict[str, Any]] | None = None,
    name: str | None = None,
) -> State:
    """Run every variant, save each as a DVC experiment, compare them.

    Args:
        sets: Values by key of params.yaml; every combination of them is a variant.
        seeds: Of runtime.seed; each is a repetition of the whole chain.
        variants: Params by name of the variant, each over params.yaml.
        name: Of the sweep, and before the name of each experiment. Empty: what varies.
    """
    follow_parent()
    try:
        sweep = make_sweep(sets, seeds, variants, name)
        with only_one(LOCK, "sweep"):  # two would wait for the same slots
            failures = run(sweep)
    except InputError as error:
        return Failed(message=str(error))
    return Failed(message=failures) if failures else Completed(message=f"{len(sweep.variants)} variants are compared")


def run(sweep: Sweep) -> str:
    """One task per variant, named like it. Returns one sentence per failure."""
    with open_repo() as repo:
        order = in_order(sweep, read_graph(repo))
    show = line_printer(variant.name for variant in sweep.variants)
    variants = Variants(SWEEPS / sweep.name, Start.now(), show)
    at_once = len(Slots(RuntimeConfig.load()).cpus) + 1  # one may be planning, or saving, while the slots are taken
    turn = threading.Semaphore(at_once)
    findings = Findings(sweep, variants)
    record = SweepRun(sweep)
    futures: list[PrefectFuture[State]] = []
    try:
        for variant in order:
            turn.acquire()
            futures.append(variant_task(variant, sweep, variants, findings, record, turn).submit(return_state=False))
        wait(futures)
    except BaseException:  # Ctrl-C, SIGTERM, cancelled in Prefect
        print("stopping; run again to continue", flush=True)
        variants.stop()
        wait(futures, timeout=20)
        record.end("KILLED")
        raise
    findings.write_page(record)
    findings.record_in(record)
    findings.show(record.address())
    return findings.failures


def variant_task(
    variant: Variant, sweep: Sweep, variants: Variants, findings: Findings, record: SweepRun, turn: threading.Semaphore
) -> Task[[], State]:
    @task(name=variant.name, task_run_name=variant.name, cache_policy=NO_CACHE)  # what is done already, DVC knows better
    def run_variant() -> State:
        try:
            ended = variants.carry_out(variant, sweep.experiment(variant), record.run_id)
        finally:
            turn.release()
        findings.ended[variant.name] = ended
        return Completed(name="Saved", message=ended.experiment) if ended.state == "saved" else Failed(message=ended.why)

    return run_variant


def warn_of_untracked() -> None:
    """As with `dvc exp run --queue`, a file that git has never heard of is in no checkout."""
    unknown = [file for file in git("ls-files", "--others", "--exclude-standard").splitlines() if file not in WRITTEN]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        print(f"not in git, so in no variant: {', '.join(unknown[:3])}{more} (`git add` brings them in)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.compare", description="Run variants of params.yaml and compare them."
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=A,B", help="values of a key; every combination is run"
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="values of runtime.seed: repetitions of the whole chain")
    parser.add_argument("--list", metavar="FILE", type=Path, help="variants by name, each {key: value} over params.yaml")
    parser.add_argument("--name", help="of the sweep, and before the name of each experiment; default: what varies")
    given = parser.parse_args()
    follow_parent()
    try:
        parameters = {"name": given.name} | read_arguments(given.set, given.seeds, given.list)
        make_sweep(**parameters)  # what is wrong is said before anything starts
        warn_of_untracked()
        with prefect_api(watched=True):
            state = compare(**parameters, return_state=True)
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if not state.is_completed():
        sys.exit(state.message)


def read_arguments(settings: list[str], seeds: str | None, file: Path | None) -> dict[str, Any]:
    """The parameters of the flow, as a deployment of it would name them."""
    sets: dict[str, list[Any]] = {}
    for key, values in map(read_set, settings):
        if key in sets:
            raise InputError(f"--set {key} is given twice; put all values behind one")
        sets[key] = values
    try:
        numbers = [int(seed) for seed in seeds.split(",")] if seeds else None
    except ValueError:
        raise InputError(f"--seeds {seeds}: seeds are whole numbers with commas between them") from None
    return {"sets": sets, "seeds": numbers, "variants": read_list(file) if file else None}


if __name__ == "__main__":
    main()
