"""The checkpoints that a run leaves."""

import re
from pathlib import Path

from mmcast.errors import CASTError
from mmcast.models.weights.loading import _read_weights
from mmcast.training.distributed import say


def latest_intact_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; a half-written one is passed over with a
    warning.
    """
    numbered = [
        (int(match[1]), path)
        for path in folder.glob('*.pth')
        if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))
    ]
    for _, path in sorted(numbered, reverse=True):
        try:
            _read_weights(path)
        except CASTError as error:
            say(f'warning: {error}; trying the one before')
        else:
            return path
    if numbered:
        say(f'warning: no checkpoint in {folder} can be read; starting anew')
    return None
