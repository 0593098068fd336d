"""What images leave out, on this machine: where it is found, and when what was brought for an image is forgotten.

It is brought before the agent is asked to take the image, and then a part of the generation as all other files are.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from dom0.agent.generations import Generation, Generations
from dom0.images import private

_IMAGE = re.compile(r"[0-9a-f]{64}")


def find_roots(state: Path, image_id: str, project: str) -> list[Path]:
    """Directories that may have the files for that image, the one that is meant first.

    What was brought for it; a generation of it; what was put there by hand; what the machine runs with now, or ran
    well with.
    """
    generations = Generations(state)
    current, _ = generations.current()
    known = [current, *generations.all()]
    of_image = [g for g in known if g and g.dom0_image == image_id]
    of_project = [g for g in (current, *generations.good_of(project)) if g and g.desired.project == project]
    brought = private.brought_for(state, image_id)
    return [
        *([brought] if (brought / private.COMPLETE).exists() else []),
        *(generations.files(g.number) for g in of_image),
        state / private.DIRECTORY / project,
        *(generations.files(g.number) for g in of_project),
    ]


def forget(state: Path, current: Generation) -> None:
    """Remove what was brought for other images than the current generation's, and before it: nobody will take it."""
    directory = state / private.DIRECTORY
    for path in directory.iterdir() if directory.is_dir() else ():
        is_used = path == private.brought_for(state, current.dom0_image)
        if _IMAGE.fullmatch(path.name) and not is_used and path.lstat().st_ctime < current.created:
            shutil.rmtree(path, ignore_errors=True)
