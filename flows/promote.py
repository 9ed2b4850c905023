"""Make a version of the policy in MLflow's registry the champion, whatever the gate says: a person decides.

    python -m flows.promote 3

The gate of `python -m flows.align` decides for itself (flows/engine/gate.py). Why it refused a version is that version's tag
`gate`. `python -m flows.rollback` takes it back.
"""

import argparse
import sys

from flows.engine.promotion import NAME
from tasks.core.errors import InputError
from tasks.core.registry import Registry


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description="Make a version of the policy the champion.")
    parser.add_argument("version", help="its number in MLflow's registry")
    number = parser.parse_args().version
    try:
        registry = Registry(NAME)
        version = registry.version(number)
        registry.promote(version)
    except InputError as error:
        sys.exit(str(error))
    print(f"the champion is version {version.number} of {NAME} ({version.tags.get('model', 'of unknown origin')})")


if __name__ == "__main__":
    main()
