"""THE CLOCK: when each stage of dvc.yaml runs, on which slot, and what if it dies. The only folder that imports prefect.

Importing this package settles, before prefect is loaded, what its environment must say: no telemetry, nothing on the
console but what the flow itself prints, a home inside the project, and the key to this checkout's server. Whatever the user
has set stays.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from flows.engine.key import find_key
from tasks.core.errors import InputError, check_system

try:
    check_system()
except InputError as error:
    sys.exit(str(error))

os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_DATABASE_TIMEOUT", "60")  # seconds; SQLite is locked for longer than 10 on a busy machine
os.environ.setdefault("PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT", "60")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # a server still receives every line

find_key()

if "PREFECT_HOME" not in os.environ and Path("dvc.yaml").exists():
    home = Path(".scratch/prefect").resolve()
    with suppress(OSError):  # prefect makes the last folder only; where nothing can be written it says so itself
        home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
