"""The flow's MLflow run, kept by a process of its own.

    python -m flows.engine.recorder <descriptor of a socket>

Importing mlflow takes longer than all else that a flow with nothing to do has to do; here it happens beside the flow. And
whoever keeps the run outlives the flow: when that is killed, this process is the one that can still say so.
"""

import json
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from flows.engine.lineage import PipelineRun, State
from tasks.core.errors import InputError
from tasks.core.mlflow_client import short, warm_up

LOG = Path(".scratch/logs/recorder.log")


class Recorder:
    """The flow's side of it. What needs no answer does not wait for one: the other side may still be importing."""

    def __init__(self) -> None:
        """The process begins to import; there is no run yet."""
        self.run_id = self.address = ""  # of the run; of all runs in MLflow's UI
        self._said: list[list[Any]] = []
        self._unanswered = 0
        self._lock = threading.Lock()
        self._start()

    @property
    def run_address(self) -> str:
        """Of the run itself."""
        return f"{self.address[self.address.find('http') :]}/{self.run_id}"

    def begin(self, wait: bool = True) -> None:
        """Open the run. Raises InputError where MLflow does not answer; without waiting, that comes with a later call."""
        self._call(["begin", None], wait)

    def settled(self, name: str, state: State, why: str, seconds: float) -> State:
        """As PipelineRun.settled has it."""
        found: State = self._call(["settled", name, state, why, seconds], wait=state == "ran")
        return found or state

    def consider(self) -> str:
        """As PipelineRun.consider has it."""
        sentence: str = self._call(["consider"], wait=True)
        return sentence

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """The first word counts, even if it could not be delivered. A flow that never began has nothing to end."""
        if self._calls.closed:
            return
        try:
            if self._said:
                self._call(["end", status], wait=True)
        finally:
            with suppress(OSError):
                self._calls.close()
            self._answers.close()

    def _call(self, call: list[Any], wait: bool) -> Any:
        with self._lock:
            if self._calls.closed:  # a stage that ends after the flow was stopped
                return None
            self._said.append(call)
            try:
                return self._exchange([call], wait)
            except OSError:  # somebody killed it: another one continues the run, and is told all of it again
                self._start()
                self._unanswered = 0
                everything = [["begin", self.run_id or None] if said[0] == "begin" else said for said in self._said]
            try:
                return self._exchange(everything, wait)
            except OSError:
                raise InputError(f"the process that keeps the MLflow run ended; {LOG} says why") from None

    def _exchange(self, calls: list[list[Any]], wait: bool) -> Any:
        """The answer to the last one. Raises OSError when nobody is there, InputError when any call so far has failed."""
        self._calls.write("".join(json.dumps(call) + "\n" for call in calls))
        self._calls.flush()
        self._unanswered += len(calls)
        result = None
        while wait and self._unanswered:
            answer = json.loads(self._answers.readline() or "null")
            if answer is None:
                raise ConnectionResetError
            self._unanswered -= 1
            if "error" in answer:
                self._said.clear()  # a run that could not begin has no end either: this is the complaint to be heard
                raise InputError(answer["error"])
            self.run_id, self.address, result = answer["run_id"], answer["address"], answer["result"]
        return result

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with theirs, LOG.open("w") as log:
            subprocess.Popen(
                [sys.executable, "-m", "flows.engine.recorder", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._calls, self._answers = ours.makefile("w", encoding="utf-8"), ours.makefile("r", encoding="utf-8")
        ours.close()


def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as flow:
        calls, answers = flow.makefile("r", encoding="utf-8"), flow.makefile("w", encoding="utf-8")
    warm_up()
    run: PipelineRun | None = None
    try:
        for line in calls:
            answer: dict[str, Any] = {}
            try:
                run, answer["result"] = carry_out(run, *json.loads(line))
                answer |= {"run_id": run.run_id, "address": run.address}
            except InputError as error:
                answer["error"] = str(error)
            except Exception as error:  # a full disk, most often
                traceback.print_exc()
                answer["error"] = f"MLflow cannot keep the run ({short(error)}); {LOG} says more; run again when it can"
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except OSError:  # the flow is gone
        pass
    if run:
        run.end("LOST")  # unless the flow has ended it


def carry_out(run: PipelineRun | None, method: str, *arguments: Any) -> tuple[PipelineRun, Any]:
    if method == "begin":
        return PipelineRun(*arguments), None
    if run is None:
        raise InputError("the run was not begun")
    return run, getattr(run, method)(*arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]))
