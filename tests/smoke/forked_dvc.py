"""`dvc <arguments>`, run by a nursery: each stage forks with the libraries loaded, as in the flow, and need not import them."""

import os
import sys

from dvc.cli import main

from flows.engine.fork_command import fork_commands

if __name__ == "__main__":
    fork_commands(not_for_the_stage=os.open(os.devnull, os.O_RDONLY))
    sys.exit(main(sys.argv[1:]))
