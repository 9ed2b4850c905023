"""Make the champion before this one the champion again.

    python -m flows.rollback

The version that is left stays in MLflow's registry, and the gate will not let it pass again; `python -m flows.promote` can.
"""

import argparse
import sys

from flows.engine.promotion import NAME
from tasks.core.errors import InputError
from tasks.core.registry import Registry


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.rollback", description="Go back to the champion before this one.")
    parser.parse_args()
    try:
        left, back = Registry(NAME).roll_back()
    except InputError as error:
        sys.exit(str(error))
    print(f"the champion is version {back.number} of {NAME} again ({back.tags.get('model', '?')}), no longer {left.number}")


if __name__ == "__main__":
    main()
