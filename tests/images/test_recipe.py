"""What the images of the chain are made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dom0.images import recipe

SCRIPT = """
import sys
opened, looked_at = [], []
sys.addaudithook(lambda event, values: opened.append(values[0]) if event == "open" else None)
from dom0.images import recipe

def remembered(path, files, compute, **others):
    looked_at.extend(entry.path for entry in files)
    opened.clear()
    return compute()

recipe.remembered = remembered
recipe.base_inputs()
print(*sorted(set(map(str, opened)) - set(looked_at)), sep="\\n")
"""


def test_whatever_the_inputs_of_the_base_are_read_from_is_looked_at_for_changes() -> None:
    """But for the lists of package sources, whose text is compared."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    others = [Path(name) for name in done.stdout.split("\n") if name]
    assert all(recipe.SOURCES[0] == path or recipe.SOURCES[1] in path.parents for path in others), others


def test_what_is_remembered_is_what_would_be_read() -> None:
    base_inputs = recipe.base_inputs.__wrapped__
    assert base_inputs() == base_inputs() == recipe._read_base_inputs()
