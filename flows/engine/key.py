"""The key to the Prefect server of `make server`. Whoever holds it may have workers run code; a web page that the user opens,
which reaches the same ports, does not hold it.

It is Prefect's own authentication, in a file of this checkout that only the user can read. Processes of this checkout find it
there; elsewhere the user sets PREFECT_API_AUTH_STRING. The patch of a flow, which is code, is signed with it as well.
"""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "PREFECT_API_AUTH_STRING"


def key_file(port: int) -> Path:
    return Path(f".scratch/prefect-{port}.key")


def make_key(port: int) -> str:
    """The key of the server on this port, the same each time it starts: workers elsewhere know it."""
    file = key_file(port)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(f"admin:{secrets.token_urlsafe(32)}")
    return file.read_text()


def find_key() -> None:
    """Into the environment, if PREFECT_API_URL names the server of this checkout. No other server is shown the key."""
    server = urlsplit(os.environ.get("PREFECT_API_URL", ""))
    if VARIABLE not in os.environ and server.hostname in ("127.0.0.1", "localhost") and server.port:
        file = key_file(server.port)
        if file.exists():
            os.environ[VARIABLE] = file.read_text()


def sign(*said: Any) -> str:
    """What only a holder of the key can say of these values."""
    text = json.dumps(said, sort_keys=True)
    return hmac.new(os.environ.get(VARIABLE, "").encode(), text.encode(), hashlib.sha256).hexdigest()
