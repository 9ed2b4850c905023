"""A scratch checkout of this project: some commit, and changes on top of it, in a folder beside the user's working tree.

What runs in it is recorded by the same MLflow, waits for the same slots and may share the same DVC cache; what it changes
stays there. The user's files are read, never touched.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from flows.engine.api import lent
from flows.engine.git import git
from flows.engine.lifetime import PARENT
from flows.engine.slots import SLOTS
from tasks.core.mlflow_client import tracking_uri


def make_checkout(folder: Path, commit: str, patch: str = "", shared_cache: bool = True) -> None:
    """Put `commit` with `patch` (as `changes()` gives it) into `folder`, which is made anew.

    shared_cache: what this project has computed already comes from its cache; False: an empty one, so everything runs.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    git("clone", "--quiet", "--shared", "--no-checkout", ".", str(folder))
    git("-C", str(folder), "checkout", "--quiet", "--detach", commit)
    if patch:
        git("-C", str(folder), "apply", "--binary", "--whitespace=nowarn", "-", given=patch)
    (folder / ".scratch").mkdir()
    own = Path(".dvc/config.local")  # where a remote's password is kept, which git does not carry
    if own.exists():
        shutil.copy(own, folder / own)
    with Repo() as here:
        cache = Path(here.cache.local_cache_dir)
    with Repo(str(folder)) as there, there.config.edit("local") as config:
        config.setdefault("cache", {})["dir"] = str(cache if shared_cache else folder / ".dvc/cache")


def start_align(folder: Path, *arguments: str, **says: str) -> "subprocess.Popen[str]":
    """`python -m flows.align` in a checkout; it ends when this process ends. Its output is the caller's to read.

    says: further environment, such as the MLflow run that the flow belongs to.
    """
    shares = {"MLFLOW_TRACKING_URI": tracking_uri(), "REALIGN_SLOTS": str(SLOTS.resolve()), PARENT: str(os.getpid())}
    if "REALIGN_SHARED" in os.environ:
        shares["REALIGN_SHARED"] = str(Path(os.environ["REALIGN_SHARED"]).resolve())
    return subprocess.Popen(
        [sys.executable, "-m", "flows.align", *arguments],
        cwd=folder,
        env=os.environ | shares | says | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=lent(),
        start_new_session=True,  # Ctrl-C is for the caller, who passes it on
    )
