"""One flow's work in this folder: the plan, and how a stage of it is carried out; any number of stages at once."""

import errno
import threading
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

from dvc.dvcfile import LOCK_FILE
from prefect.runtime import flow_run

from flows.engine.children import Children, Ended
from flows.engine.console import METRICS, Outcome, console, line_printer
from flows.engine.environment import keep_environment
from flows.engine.graph import open_repo, read_graph
from flows.engine.lineage import State, close_stage_run
from flows.engine.lockfile import read_lock
from flows.engine.locks import only_one
from flows.engine.plan import Step, make_plan, resolve
from flows.engine.recorder import Recorder
from flows.engine.reproduce import FLOW_RUN_ID
from flows.engine.slots import ELSEWHERE, Slots
from flows.engine.workers import Workers
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.tracking import PIPELINE_RUN_ID

ONE_FLOW = Path(".scratch/align/lock")  # one flow at a time in a checkout; after a crash, when its last child is gone


class Executor:
    """The plan, the children and slots that carry it out, the MLflow run that records it. Lives as long as its process."""

    def __init__(self, until: str | None = None, workers: bool = False):
        """Decide what to do; nothing has started yet. Raises InputError where the project cannot be read.

        workers: stages run on the workers of Prefect's pools instead of here.
        """
        self._alone = only_one(ONE_FLOW, "flow")
        self.record = Recorder()  # first of all: it has much to import
        self._slots = Slots(RuntimeConfig.load())
        with open_repo() as repo:
            graph = read_graph(repo)
            self._claims = Path(repo.cache.local_cache_dir) / "at-work"  # whoever shares the cache can use what we make
            graph = graph.until(until) if until else graph
            self.plan = make_plan(graph)
            self.makes = {str(out) for stage in graph.stages.values() for out in stage.outs}
        self.outcomes: dict[str, Outcome] = {}
        self.promotion = ""  # what became of the best policy
        self._ready = self._stopping = False
        self._dvc = threading.Lock()  # DVC's objects are not made for threads: one view of the project at a time
        self._show = line_printer(self.plan)
        self._children = Children(self._show)
        self._workers = Workers(self._show) if workers else None

    @property
    def idle(self) -> bool:
        """Nothing to run, nothing to restore."""
        return all(step.action == "cached" for step in self.plan.values())

    def get_ready(self) -> None:
        """Check devices and parameters of all that will run, and open the flow's run in MLflow. Once is enough."""
        if self._ready:
            return
        for step in self.plan.values() if not self._workers else ():
            self._slots.check(step.name, step.gpus)
        if not self.idle:
            coming = [step for step in self.plan.values() if step.action in ("run", "depends")]
            self._children.prepare(coming)
            if self._workers:
                with open_repo() as repo:
                    self._workers.provide(repo)
            self._children.check()
        self.record.begin(wait=not self.idle)
        self._ready = True

    def carry_out(self, step: Step) -> Outcome:
        """Leave a stage, restore it, or run it on a slot of its own. Called once everything upstream is done."""
        try:
            outcome = self._carry_out(step)
        except InputError as error:
            outcome = Outcome(step.name, "stopped" if self._stopping else "failed", str(error), 0.0)
        except Exception as error:  # ours, or a full disk: the stage has failed, and the others go on
            if getattr(error, "errno", None) != errno.ENOSPC:
                traceback.print_exc()
            outcome = Outcome(step.name, "failed", f"{type(error).__name__}: {error}", 0.0)
        self.outcomes[step.name] = outcome
        if outcome.state != "cached":
            done = f"{len(self.outcomes)} of {len(self.plan)} stages done"
            self._show(step.name, f"{outcome.state} in {outcome.seconds:.1f} s ({done})")
        return outcome

    def _carry_out(self, step: Step) -> Outcome:
        began = time.monotonic()
        state, work = self._without_running(step)
        why, log = step.why, ""
        if state is None:
            with self._slots.claim(self._claims / (work or step.name)) as claim:
                state = self._without_running(step, again=True)[0] if claim.waited else None
                if state is None:
                    with nullcontext(ELSEWHERE) if self._workers else self._slots.lease(step.gpus) as lease:
                        began = time.monotonic()  # waiting is not the stage's time
                        ended = self._reproduce(step, lease.devices, [claim.file, *lease.files])
                    state, why, log = ("failed", ended.why, ended.log) if ended.code else ("ran", why, "")
        if state == "failed" and self._stopping:
            state, why, log = "stopped", "the flow was stopped", ""
        seconds = time.monotonic() - began
        state = self.record.settled(step.name, state, why, seconds)
        return Outcome(step.name, state, why, seconds, log)

    def _reproduce(self, step: Step, devices: dict[str, str], locks: list[int]) -> Ended:
        self._show(step.name, f"starts: {step.why}")
        if self._workers and (why := self._workers.reproduce(step, self.record.run_id)):
            return Ended(1, why, log="")
        says = {PIPELINE_RUN_ID: self.record.run_id, FLOW_RUN_ID: flow_run.id or ""} | devices
        ended = self._children.reproduce(step.name, says, [self._alone.fileno(), *locks], fetch=bool(self._workers))
        if ended.code:
            close_stage_run(step.name)
        return ended

    def stop(self) -> None:
        """End every child at once and start no more: the flow was cancelled."""
        self._stopping = True
        console.print("stopping; run again to continue")
        self._slots.stop()
        if self._workers:
            self._workers.stop()
        self._children.stop()

    def abandon(self) -> None:
        """The flow ends before its conclusion: its MLflow run, if there is one, must not stay RUNNING."""
        self._children.close()
        self.record.end("KILLED")

    def conclude(self, killed: bool = False) -> list[Outcome]:
        """Close the MLflow run and say what became of every stage, in the plan's order."""
        blame: dict[str, list[str]] = {}
        for name, step in self.plan.items():
            if name in self.outcomes:
                blame[name] = [name] if self.outcomes[name].state == "failed" else []
                continue
            blame[name] = list(dict.fromkeys(cause for need in step.upstream for cause in blame[need]))
            why = f"because {' and '.join(blame[name])} failed" if blame[name] else "the flow was stopped"
            self.record.settled(name, "not run", why, 0.0)
            self.outcomes[name] = Outcome(name, "not run", why, 0.0)
        outcomes = [self.outcomes[name] for name in self.plan]
        failed = any(outcome.state == "failed" for outcome in outcomes)
        if not failed and not killed and str(METRICS) in self.makes:
            self.promotion = self.record.consider()
        self.record.end("KILLED" if killed else "FAILED" if failed else "FINISHED")
        self._keep_environment()
        return outcomes

    def _keep_environment(self) -> None:
        """Of the stages that ran on this machine."""
        ran = {name for name, outcome in self.outcomes.items() if outcome.state == "ran"}
        if ran and not self._workers:
            lock = read_lock(Path(LOCK_FILE).read_text(encoding="utf-8"))
            keep_environment({name: lock[name] for name in ran & lock.keys()})

    def _without_running(self, step: Step, again: bool = False) -> tuple[State | None, str]:
        """cached or restored; or None (the stage must run) and what that work is called, as far as it is known.

        A stage planned as `run` is not looked at twice, unless somebody else may have done its work since.
        """
        if step.action == "cached":
            return "cached", ""
        if step.action == "run" and not again:
            return None, step.work
        try:
            with self._dvc, open_repo() as repo:
                found, work = resolve(repo, step.name)
        except InputError:  # most often a lock that another dvc holds: the child has the patience, and reports the rest
            return None, ""
        return (None if found == "run" else found), work
