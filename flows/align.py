"""The end-to-end flow: every stage of dvc.yaml as a Prefect task, in DVC's order, side by side where there are slots.

    python -m flows.align                  plan, run what must run, conclude
    python -m flows.align --until sft      only sft and what it needs (`policy`: all of the matrix)
    python -m flows.align --workers        stages run on the workers of the Prefect pools instead of here

DVC decides what runs, this flow when; a stage that fails stops only what depends on it. Exit code 0, or 1 with one
sentence per failure. Run again, it continues where it stopped: DVC knows what is done, each stage has its checkpoint.
"""

import argparse
import functools
import sys
from uuid import UUID

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.engine import artifacts
from flows.engine.api import follow_parent, has_server, prefect_api
from flows.engine.console import Outcome, show_outcomes, show_plan, show_results
from flows.engine.executor import Executor
from flows.engine.notify import check_block, notify
from flows.engine.plan import Step
from flows.engine.promotion import alarms_of
from tasks.core.errors import InputError


def run_name() -> str:
    """What runs: in Prefect's lists."""
    until, workers = flow_run.parameters["until"], flow_run.parameters["workers"]
    return "align" + (f" until {until}" if until else "") + (" on workers" if workers else "")


@flow(name="align", flow_run_name=run_name)
def align(until: str | None = None, workers: bool = False) -> State:
    """Run what must run of dvc.yaml: plan, run, conclude.

    Args:
        until: Only this stage (or matrix) and what it needs. Empty: all stages.
        workers: Stages run on the workers of Prefect's pools, each in a checkout of its own, instead of where the flow runs.
    """
    follow_parent()
    try:
        check_block()
        executor = plan(until, workers)
        outcomes = run(executor)
    except InputError as error:
        notify("realign: the flow failed", str(error))
        return Failed(message=str(error))
    failures = conclude(executor, outcomes)
    artifacts.show_results(outcomes, executor.promotion, executor.record.run_address)
    if failures:
        notify("realign: stages failed", failures)
    elif alarmed := alarms_of(outcome.name for outcome in outcomes if outcome.state == "ran"):
        notify("realign: alarms in training", alarmed)
    return Failed(message=failures) if failures else Completed(message=f"{len(outcomes)} stages are up to date")


@functools.cache
def plan(until: str | None, workers: bool) -> Executor:
    """What will happen and why, shown first. Once per process: `main` looks before it asks Prefect for a flow run."""
    executor = Executor(until, workers)
    show_plan(executor.plan.values())
    return executor


def run(executor: Executor) -> list[Outcome]:
    """One task per stage, named like the stage; Prefect starts each when the tasks it waits for have succeeded."""
    executor.get_ready()
    bar = artifacts.show_plan(executor.plan.values())
    futures: dict[str, PrefectFuture[State]] = {}
    try:
        for name, step in executor.plan.items():
            needs = [futures[need] for need in step.upstream]
            futures[name] = stage_task(executor, step, bar).submit(return_state=False, wait_for=needs)
        wait(list(futures.values()))
    except BaseException:  # Ctrl-C, SIGTERM, cancelled in Prefect
        executor.stop()
        wait(list(futures.values()), timeout=5)
        executor.conclude(killed=True)
        raise
    return executor.conclude()


def stage_task(executor: Executor, step: Step, bar: UUID | None) -> Task[[], State]:
    @task(name=step.name, task_run_name=step.name, cache_policy=NO_CACHE)  # what is done already, DVC knows better
    def stage() -> State:
        outcome = executor.carry_out(step)
        artifacts.show_progress(bar, len(executor.outcomes), len(executor.plan))
        if outcome.state in ("failed", "stopped"):
            return Failed(name=outcome.state.capitalize(), message=outcome.why)
        return Completed(name=outcome.state.capitalize(), message=outcome.why)

    return stage


def conclude(executor: Executor, outcomes: list[Outcome]) -> str:
    """Show what happened and, if all went well, the results of these stages. Returns one sentence per failure."""
    show_outcomes(outcomes)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        show_results(executor.makes, executor.record.address, executor.promotion)
    return "\n".join(f"{one.name} failed: {one.why}{f' (see {one.log})' if one.log else ''}" for one in failed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.align", description="Run what must run of dvc.yaml.")
    parser.add_argument("--until", metavar="STAGE", help="only this stage (or matrix) and what it needs")
    parser.add_argument("--workers", action="store_true", help="stages run on the workers of the Prefect pools, not here")
    asked = parser.parse_args()
    follow_parent()
    try:
        executor = plan(asked.until, asked.workers)
        if executor.idle and not has_server():  # nothing to schedule, and nobody to tell
            executor.get_ready()
            for step in executor.plan.values():
                executor.carry_out(step)
            sys.exit(conclude(executor, executor.conclude()) or None)
        try:
            with prefect_api(watched=not executor.idle):
                executor.get_ready()  # here: while Prefect's API starts
                state = align(asked.until, asked.workers, return_state=True)
        finally:
            executor.abandon()
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if not state.is_completed():
        sys.exit(state.message)


if __name__ == "__main__":
    main()
