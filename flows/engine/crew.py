"""One flow's work in this folder: the plan, and how a stage of it is carried out; any number of stages at once."""

import threading
import time
import traceback

from prefect.runtime import flow_run

from flows.engine.graph import open_repo, read_graph
from flows.engine.lineage import PipelineRun, State, close_stage_run
from flows.engine.plan import Step, make_plan, settle
from flows.engine.preflight import check_params
from flows.engine.process import Children
from flows.engine.reproduce import FLOW_RUN_ID
from flows.engine.show import Outcome, console, line_printer
from flows.engine.slots import Slots, only_flow
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tasks.core.tracking import PIPELINE_RUN_ID


class Crew:
    """The plan, the children and slots that carry it out, the MLflow run that records it. Lives as long as its process."""

    def __init__(self, until: str | None = None):
        """Decide what to do; nothing has started yet. Raises InputError where the project cannot be read."""
        self._alone = only_flow()
        self._slots = Slots(RuntimeConfig.load())
        with open_repo() as repo:
            graph = read_graph(repo)
            self.plan = make_plan(graph.until(until) if until else graph)
        self.outcomes: dict[str, Outcome] = {}
        self._record: PipelineRun | None = None
        self._dvc = threading.Lock()  # DVC's objects are not made for threads: one view of the project at a time
        self._show = line_printer(self.plan)
        self._children = Children(self._show)

    @property
    def idle(self) -> bool:
        """Nothing to run, nothing to restore."""
        return all(step.action == "cached" for step in self.plan.values())

    def get_ready(self) -> None:
        """Check devices and parameters of all that will run, and open the flow's run in MLflow. Once is enough."""
        if self._record:
            return
        for step in self.plan.values():
            self._slots.check(step.name, step.gpus)
        check_params(step for step in self.plan.values() if step.action in ("run", "depends"))
        self._record = PipelineRun()

    @property
    def record(self) -> PipelineRun:
        assert self._record, "get_ready() comes first"
        return self._record

    def carry_out(self, step: Step) -> Outcome:
        """Leave a stage, restore it, or run it on a slot of its own. Called once everything upstream is done."""
        try:
            outcome = self._carry_out(step)
        except Exception as error:  # ours, or a full disk: the stage has failed, and the others go on
            traceback.print_exc()
            outcome = Outcome(step.name, "failed", f"{type(error).__name__}: {error}", 0.0)
        self.outcomes[step.name] = outcome
        if outcome.state != "cached":
            done = f"{len(self.outcomes)} of {len(self.plan)} stages done"
            self._show(step.name, f"{outcome.state} in {outcome.seconds:.1f} s ({done})")
        return outcome

    def _carry_out(self, step: Step) -> Outcome:
        began = time.monotonic()
        log = ""
        state, why = self._without_running(step), step.why
        if state is None:
            with self._slots.lease(step.gpus) as lease:
                began = time.monotonic()  # waiting for a slot is not the stage's time
                self._show(step.name, f"starts: {step.why}")
                says = {PIPELINE_RUN_ID: self.record.run_id, FLOW_RUN_ID: flow_run.id or ""} | lease.devices
                ended = self._children.reproduce(step.name, says, [self._alone.fileno(), *lease.files])
            if ended.code == 0:
                state = "ran"
            else:
                state, why, log = "failed", ended.why, str(ended.log)
                close_stage_run(step.name)
        seconds = time.monotonic() - began
        state = self.record.settled(step.name, state, why, seconds)
        return Outcome(step.name, state, why, seconds, log)

    def stop(self) -> None:
        """End every child at once and start no more: the flow was cancelled."""
        console.print("stopping; run again to continue")
        self._children.stop()

    def abandon(self) -> None:
        """The flow ends before its conclusion: its MLflow run, if there is one, must not stay RUNNING."""
        if self._record:
            self._record.end("KILLED")

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
        self.record.end("KILLED" if killed else "FAILED" if failed else "FINISHED")
        return outcomes

    def _without_running(self, step: Step) -> State | None:
        """cached, restored, or None: the stage must run. A stage planned as `run` is not looked at twice."""
        if step.action == "cached":
            return "cached"
        if step.action == "run":
            return None
        try:
            with self._dvc, open_repo() as repo:
                found = settle(repo, step.name)
        except InputError:  # most often a lock that another dvc holds: the child has the patience, and reports the rest
            return None
        return None if found == "run" else found
