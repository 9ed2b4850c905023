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
from pathlib import Path
from typing import Any, Literal

from flows.engine.lineage import PipelineRun, State
from tasks.core.errors import InputError
from tasks.core.tracking import warm_up

LOG = Path(".scratch/logs/recorder.log")


class Recorder:
    """The flow's side of it. Each call waits for the answer."""

    def __init__(self) -> None:
        """The process begins to import; there is no run yet."""
        self.run_id = ""
        self._said: list[list[Any]] = []
        self._lock = threading.Lock()
        self._start()

    def begin(self) -> None:
        """Open the run. Raises InputError where MLflow does not answer."""
        self.run_id = self._ask("begin", None)

    def settled(self, name: str, state: State, why: str, seconds: float) -> State:
        """As PipelineRun.settled has it."""
        settled: State = self._ask("settled", name, state, why, seconds)
        return settled

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """The first word counts. A flow that never began has nothing to end."""
        if self.run_id:
            self._ask("end", status)
        self._stream.close()

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
        self._stream = ours.makefile("rw", encoding="utf-8")
        ours.close()

    def _ask(self, *call: Any) -> Any:
        with self._lock:
            if self._stream.closed:
                return call[2] if call[0] == "settled" else None
            answer = self._exchange(list(call))
            if answer is None:  # somebody killed it: another one continues the run, and is told all of it again
                self._start()
                for said in [["begin", self.run_id or None], *self._said]:
                    self._exchange(said)
                answer = self._exchange(list(call)) or {"error": f"the process that keeps the MLflow run ended; see {LOG}"}
            if call[0] == "settled":
                self._said.append(list(call))
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["result"]

    def _exchange(self, call: list[Any]) -> dict[str, Any] | None:
        try:
            self._stream.write(json.dumps(call) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError:
            return None
        return json.loads(line) if line else None


def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as flow:
        stream = flow.makefile("rw", encoding="utf-8")
    warm_up()
    run: PipelineRun | None = None
    try:
        for line in stream:
            method, *arguments = json.loads(line)
            answer: dict[str, Any] = {"result": None}
            try:
                if method == "begin":
                    run = PipelineRun(*arguments)
                    answer["result"] = run.run_id
                else:
                    answer["result"] = getattr(run, method)(*arguments)
            except InputError as error:
                answer = {"error": str(error)}
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
    except OSError:  # the flow is gone
        pass
    if run:
        run.end("KILLED")  # unless the flow has said how it ended


if __name__ == "__main__":
    main(int(sys.argv[1]))
