"""Register what prefect.yaml says with the Prefect server, as often as one likes: `make deploy`.

Besides the deployments, what they need: the work pools, and an automation that calls a flow run Crashed once it falls
silent. A flow that is killed is reported by those who survive it, its worker or its stages; a machine that is gone has
nobody left to speak.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.workers.process import ProcessWorker
from ruamel.yaml import YAML

from flows.engine.api import HEARTBEAT, has_server
from flows.engine.slots import gpus_here

DEPLOYMENTS = Path("prefect.yaml")
NAME = "a flow run that falls silent has crashed"
SIGNS = {f"prefect.flow-run.{sign}" for sign in ("heartbeat", "Pending", "Submitting")}  # after each, another must follow
ENDS = {f"prefect.flow-run.{state}" for state in ("Running", "Completed", "Failed", "Cancelled", "Crashed")}


def main() -> None:
    if not has_server():
        sys.exit("PREFECT_API_URL names no Prefect server; `make server` starts one, `make deploy` then knows its address")
    with get_client(sync_client=True) as client:
        if reason := client.api_healthcheck():
            sys.exit(f"the Prefect server does not answer ({reason}); `make server` starts one")
        deployments = YAML(typ="safe").load(DEPLOYMENTS)["deployments"]
        known = {pool.name for pool in client.read_work_pools()}
        chosen = [one for one in deployments if has_machine(one["work_pool"]["name"], known)]
        make_pools(client, {one["work_pool"]["name"] for one in chosen})
        watch(client, {one["entrypoint"].partition(":")[2] for one in deployments})
    names = [argument for one in chosen for argument in ("--name", one["name"])]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    for one in chosen:  # Prefect would advise a worker that does not know this checkout
        when = ", ".join(str(next(iter(schedule.values()))) for schedule in one.get("schedules", [])) or "when asked for"
        print(f"{one['entrypoint'].partition(':')[2]}/{one['name']}: {when}, in pool {one['work_pool']['name']}")
    print("`make server` has this machine's workers; after the first `make worker POOL=gpu` elsewhere, `make deploy` once more")


def has_machine(pool: str, known: set[str]) -> bool:
    """Where there is no GPU, a pool of them would be "Not Ready" for ever; a worker of the pool brings it with it."""
    return pool != "gpu" or pool in known or bool(gpus_here())


def make_pools(client: SyncPrefectClient, wanted: set[str]) -> None:
    template = ProcessWorker.get_default_base_job_template()
    for pool in sorted(wanted - {pool.name for pool in client.read_work_pools()}):
        client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))


def watch(client: SyncPrefectClient, flows: set[str]) -> None:
    """One automation, as written here, whatever an earlier version of it said. Flows of other projects are not its business."""
    silence = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": sorted(flows)},
        for_each={"prefect.resource.id"},
        after=SIGNS,
        expect=SIGNS | ENDS,
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=3 * HEARTBEAT),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="nothing is heard of it: its machine or network is gone")
    for earlier in client.read_automations_by_name(NAME):
        client.delete_automation(earlier.id)
    client.create_automation(AutomationCore(name=NAME, trigger=silence, actions=[crash]))


if __name__ == "__main__":
    main()
