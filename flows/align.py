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

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed

from flows.engine.api import follow_parent, has_server, prefect_api
from flows.engine.crew import Crew
from flows.engine.plan import Step
from flows.engine.show import Outcome, show_outcomes, show_plan, show_results
from tasks.core.errors import InputError


@flow(name="align")
def align(until: str | None = None, workers: bool = False) -> State:
    """Plan, run, conclude."""
    follow_parent()
    try:
        crew = plan(until, workers)
        outcomes = run(crew)
    except InputError as error:
        return Failed(message=str(error))
    failures = conclude(crew, outcomes)
    return Failed(message=failures) if failures else Completed(message=f"{len(outcomes)} stages are up to date")


@functools.cache
def plan(until: str | None, workers: bool) -> Crew:
    """What will happen and why, shown first. Once per process: `main` looks before it asks Prefect for a flow run."""
    crew = Crew(until, workers)
    show_plan(crew.plan.values())
    return crew


def run(crew: Crew) -> list[Outcome]:
    """One task per stage, named like the stage; Prefect starts each when the tasks it waits for have succeeded."""
    crew.get_ready()
    futures: dict[str, PrefectFuture[State]] = {}
    try:
        for name, step in crew.plan.items():
            needs = [futures[need] for need in step.upstream]
            futures[name] = stage_task(crew, step).submit(return_state=False, wait_for=needs)
        wait(list(futures.values()))
    except BaseException:  # Ctrl-C, SIGTERM, cancelled in Prefect
        crew.stop()
        wait(list(futures.values()), timeout=5)
        crew.conclude(killed=True)
        raise
    return crew.conclude()


def stage_task(crew: Crew, step: Step) -> Task[[], State]:
    @task(name=step.name, task_run_name=step.name, cache_policy=NO_CACHE)  # what is done already, DVC knows better
    def stage() -> State:
        outcome = crew.carry_out(step)
        if outcome.state in ("failed", "stopped"):
            return Failed(name=outcome.state.capitalize(), message=outcome.why)
        return Completed(name=outcome.state.capitalize(), message=outcome.why)

    return stage


def conclude(crew: Crew, outcomes: list[Outcome]) -> str:
    """Show what happened and, if all went well, the results of these stages. Returns one sentence per failure."""
    show_outcomes(outcomes)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        show_results(crew.makes, crew.record.address)
    return "\n".join(f"{one.name} failed: {one.why}{f' (see {one.log})' if one.log else ''}" for one in failed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.align", description="Run what must run of dvc.yaml.")
    parser.add_argument("--until", metavar="STAGE", help="only this stage (or matrix) and what it needs")
    parser.add_argument("--workers", action="store_true", help="stages run on the workers of the Prefect pools, not here")
    asked = parser.parse_args()
    follow_parent()
    try:
        crew = plan(asked.until, asked.workers)
        if crew.idle and not has_server():  # nothing to schedule, and nobody to tell
            crew.get_ready()
            for step in crew.plan.values():
                crew.carry_out(step)
            sys.exit(conclude(crew, crew.conclude()) or None)
        try:
            with prefect_api(watched=not crew.idle):
                crew.get_ready()  # here: while Prefect's API starts
                state = align(asked.until, asked.workers, return_state=True)
        finally:
            crew.abandon()
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if not state.is_completed():
        sys.exit(state.message)


if __name__ == "__main__":
    main()
