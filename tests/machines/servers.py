"""The services of deploy/compose.yaml as plain processes: its commands and environments, on free ports of this machine.

The S3 store alone is another one: moto, which is a Python package, in place of MinIO.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg2
import yaml

from tests.processes import REPO, free_port, wait_until

BUCKETS = ("mlflow", "dvc")
SECRETS = {"POSTGRES_PASSWORD": "postgres-password", "S3_KEY": "s3-key", "S3_SECRET": "s3-secret", "PREFECT_KEY": "admin:key"}


class Servers:
    """Started one after the other; `worker` is the environment in which compose.yaml starts a worker."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self._folder, self._environment = folder, environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self._postgres, store, mlflow, prefect = (free_port() for _ in range(4))
        self.store = f"http://127.0.0.1:{store}"
        self.services = self._read({
            "@postgres/": f"@127.0.0.1:{self._postgres}/",
            "http://s3:9000": self.store,
            "http://prefect:4200": f"http://127.0.0.1:{prefect}",
            "http://mlflow:5000": f"http://127.0.0.1:{mlflow}",
            "--port 5000": f"--port {mlflow}",
            "server start --host 0.0.0.0": f"server start --host 127.0.0.1 --port {prefect}",
            "--host 0.0.0.0": "--host 127.0.0.1",
        })  # fmt: skip
        self.worker = self.services["worker"]["environment"]

    def begin(self) -> None:
        self._start_postgres()
        self.start("s3", [sys.executable, "-m", "moto.server", "--port", self.store.rpartition(":")[2]], {}, answers=self.store)
        for bucket in BUCKETS:
            self.bucket(bucket).create()
        for name, address in (("prefect", self.worker["PREFECT_API_URL"]), ("mlflow", self.worker["MLFLOW_TRACKING_URI"])):
            service = self.services[name]
            self.start(name, shlex.split(service["command"]), service["environment"], answers=f"{address}/health")

    def start(
        self, name: str, command: list[str], says: dict[str, str], answers: str = "", **options: Any
    ) -> subprocess.Popen[bytes]:
        """answers: the address at which it does so when this returns."""
        with (self._folder / f"{name}.log").open("w+") as log:
            options = {"cwd": self._folder, "env": self._environment | says, "start_new_session": True} | options
            process = subprocess.Popen(command, stdout=log, stderr=log, **options)
            self._processes.append(process)
            if answers:
                wait_until(lambda: process.poll() is not None or _answers(answers), every=0.5)
                assert process.poll() is None, log.seek(0) or log.read()[-2000:]
        return process

    def bucket(self, name: str) -> Any:
        keys = {"aws_access_key_id": SECRETS["S3_KEY"], "aws_secret_access_key": SECRETS["S3_SECRET"]}
        return boto3.resource("s3", endpoint_url=self.store, region_name="us-east-1", **keys).Bucket(name)

    def end(self) -> None:
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()

    def _read(self, here: dict[str, str]) -> dict[str, Any]:
        text = (REPO / "deploy/compose.yaml").read_text()
        for there, instead in ({f"${{{name}:?}}": value for name, value in SECRETS.items()} | here).items():
            assert there in text, f"deploy/compose.yaml says {there} no longer"
            text = text.replace(there, instead)
        return yaml.safe_load(text)["services"]

    def _start_postgres(self) -> None:
        """Its programs refuse to run as root; Debian's package has made the user `postgres`."""
        folder, password = self._folder / "postgres", self._folder / "postgres.password"
        folder.mkdir()
        password.write_text(SECRETS["POSTGRES_PASSWORD"])
        options = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
            options = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": folder}
        [*_, programs] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        initdb = [
            programs / "initdb",
            "--username=realign",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--pgdata",
            folder / "data",
        ]
        subprocess.run(initdb, check=True, capture_output=True, **options)
        command = [
            str(programs / "postgres"),
            "-D",
            str(folder / "data"),
            "-p",
            str(self._postgres),
            "-k",
            str(folder),
            "-h",
            "127.0.0.1",
        ]
        self.start("postgres", command, {}, **options)
        connection = wait_until(lambda: _connect(self._postgres))
        connection.autocommit = True
        for database in ("mlflow", "prefect"):
            connection.cursor().execute(f"CREATE DATABASE {database} OWNER realign")
        connection.close()


def _connect(port: int) -> Any:
    with suppress(psycopg2.OperationalError):
        return psycopg2.connect(
            f"host=127.0.0.1 port={port} user=realign dbname=postgres password={SECRETS['POSTGRES_PASSWORD']}"
        )


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url).is_success
    return False
