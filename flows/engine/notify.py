"""Tells people of failures and alarms, through a notification block of Prefect (Slack, e-mail, ...) that REALIGN_NOTIFY names.

export REALIGN_NOTIFY=slack-webhook/alignment      type and name of a block that the Prefect server keeps
"""

import os
import sys
from typing import Any

from prefect.blocks.core import Block

from tasks.core.errors import InputError

VARIABLE = "REALIGN_NOTIFY"


def check_block() -> None:
    """Raises InputError if there is no such block: better now than at the first failure."""
    slug = os.environ.get(VARIABLE)
    if slug:
        try:
            block = Block.load(slug)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{VARIABLE}: Prefect has no block {slug} ({error}); make it in its UI, or unset it") from None
        if not hasattr(block, "notify"):
            raise InputError(f"{VARIABLE}: the block {slug} sends no notifications; name one that does")


def notify(subject: str, body: str) -> None:
    """A notification that cannot be sent is printed and fails nothing."""
    slug = os.environ.get(VARIABLE)
    if slug:
        try:
            block: Any = Block.load(slug)
            block.notify(body, subject=subject)
        except Exception as error:  # of whatever service
            print(f"{VARIABLE}: {slug} could not be notified: {error}", file=sys.stderr)
