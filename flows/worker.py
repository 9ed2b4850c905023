"""One worker in this checkout: it starts here what a Prefect server has for the machines of a work pool.

    python -m flows.worker gpu      or: make worker POOL=gpu

PREFECT_API_URL says where the Prefect server is, MLFLOW_TRACKING_URI where runs are recorded; ports of another machine
come here through a tunnel (`ssh -L 4200:localhost:4200 -L 5000:localhost:5000 <machine>`). The worker is Prefect's own,
with an environment in which prefect.yaml and the flows find what belongs to this machine.

Ending in good order, Prefect's worker kills its flows on the spot. Ours just vanishes, whatever the signal: its flows
follow it, in good order, and tell MLflow and Prefect so.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from prefect.workers.process import ProcessWorker

from flows.engine.api import HEARTBEAT, has_server
from flows.engine.lifetime import PARENT


def main(pool: str) -> None:
    if not has_server():
        sys.exit("a worker needs a Prefect server: set PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api")
    os.environ["REALIGN_CHECKOUT"] = os.getcwd()
    os.environ[PARENT] = str(os.getpid())
    os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(HEARTBEAT)
    os.environ["PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES"] = "false"  # flows run in this very environment
    if "REALIGN_SHARED" in os.environ:
        os.environ["REALIGN_SHARED"] = str(Path(os.environ["REALIGN_SHARED"]).resolve())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _vanish)
    asyncio.run(ProcessWorker(work_pool_name=pool).start())


def _vanish(signum: int, frame: object) -> None:
    print("the worker has ended, its flows follow", flush=True)
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m flows.worker <work pool>, cpu or gpu")
    main(sys.argv[1])
