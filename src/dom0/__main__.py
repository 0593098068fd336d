"""`python -m dom0` is the `dom0` command."""

from dom0.cli import main

if __name__ == "__main__":
    main()
