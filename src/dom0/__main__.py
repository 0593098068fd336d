"""Where the `dom0` command begins, as a program and as `python -m dom0`: before anything of it is loaded."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it. Ctrl-C ends it as quietly while it loads as afterwards."""
    try:
        from dom0 import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
