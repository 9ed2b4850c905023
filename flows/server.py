"""Everything that schedules need, on this machine and for it alone: a Prefect server, an MLflow server, and workers.

    python -m flows.server      or: make server

It stays until Ctrl-C or SIGTERM and then ends what it started, workers first: their flows tell both servers how they
ended. Should one of the services end by itself, so does all of it, with a sentence: a set that runs in part looks healthy
and misses its nights, and whoever starts it (a person, systemd) can start it again.

Prefect's API answers only who has the key (flows/engine/key.py), and lets no page of another origin read an answer; MLflow
refuses other origins and hosts by itself. So no web page that is open in a browser here can have a worker run code.

PREFECT_SERVER_API_PORT and MLFLOW_PORT, the variables of the two servers, choose other ports than 4200 and 5000.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress

import httpx

from flows.engine.key import VARIABLE, key_file, make_key
from flows.engine.service import Service
from flows.engine.slots import gpus_here
from tasks.core.errors import InputError

HOST = "127.0.0.1"
LOG = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
LEASES = {
    # Kept in memory, as is the default, a killed server would forget who holds the slot of a deployment: never free again.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
SECONDS_TO_START = 120  # the first time, both make a database
SECONDS_BETWEEN_LOOKS = 0.5


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    services: list[Service] = []
    try:
        start(services)
        while all(service.alive() for service in services):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        raise InputError(_ended(next(service for service in services if not service.alive())))
    except InputError as error:
        print(error, file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # once is enough
        for service in reversed(services):
            print(f"ending {service.name}", flush=True)
            service.end()
    sys.exit(code)


def start(services: list[Service]) -> None:
    """Start them, each when those it talks to answer, and say where they are."""
    prefect, mlflow = _port("PREFECT_SERVER_API_PORT", 4200), _port("MLFLOW_PORT", 5000)
    print("starting; the first time takes longest", flush=True)
    where = ["--host", HOST, "--port"]
    key = make_key(prefect)
    closed = {
        "PREFECT_SERVER_API_AUTH_STRING": key,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{prefect},http://localhost:{prefect}",
    }
    services.append(Service("prefect-server", "prefect", "server", "start", *where, str(prefect), **LOG, **LEASES, **closed))
    services.append(Service("mlflow-server", "tasks.core.tracking_server", str(mlflow)))
    _wait_for(f"http://{HOST}:{prefect}/api/health", services[0])
    _wait_for(f"http://{HOST}:{mlflow}/health", services[1])
    says = LOG | {"PREFECT_API_URL": f"http://{HOST}:{prefect}/api", "MLFLOW_TRACKING_URI": f"http://{HOST}:{mlflow}"}
    os.environ[VARIABLE] = key
    for pool in ("cpu", "gpu") if gpus_here() else ("cpu",):
        services.append(Service(f"worker-{pool}", "flows.worker", pool, **says))
    print(
        f"""\
Prefect   http://{HOST}:{prefect}
key       {key_file(prefect)}: the page of Prefect asks for what it holds; this checkout finds it there
MLflow    http://{HOST}:{mlflow}
workers   {" ".join(service.name for service in services[2:])}
logs      {" ".join(str(service.log) for service in services)}

Now `make deploy` registers what prefect.yaml schedules, and a flow of yours is seen there too:
  PREFECT_API_URL={says["PREFECT_API_URL"]} MLFLOW_TRACKING_URI={says["MLFLOW_TRACKING_URI"]} python -m flows.align
Ctrl-C ends everything.""",
        flush=True,
    )


def _port(variable: str, default: int) -> int:
    """The port that a server is to listen on. Raises InputError if somebody does already."""
    try:
        port = int(os.environ.get(variable, default))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (ValueError, OverflowError):
        raise InputError(f"{variable} is no port: {os.environ[variable]}") from None
    except OSError as error:
        also = ", perhaps `make ui`" if variable == "MLFLOW_PORT" else ", perhaps another `make server`"
        raise InputError(
            f"port {port} is not free ({error.strerror}){also}: end what listens there, or set {variable}"
        ) from None
    return port


def _wait_for(url: str, service: Service) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while service.alive() and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url).is_success:
                return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise InputError(_ended(service) if not service.alive() else f"{service.name} does not answer: {service.log} says why")


def _ended(service: Service) -> str:
    return f"{service.name} has ended: {service.log} says why"


if __name__ == "__main__":
    main()
