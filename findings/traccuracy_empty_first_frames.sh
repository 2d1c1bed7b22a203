#!/usr/bin/env bash
# traccuracy 0.4.3 (evaluation of cell tracking): a result that equals its reference, pixel by pixel, has a DET and a
# TRA below 1, down to 0, where the first frames of a recording have no cell. `CTCMatcher`, the matcher of the Cell
# Tracking Challenge's measures, goes from the reference's first frame with a cell to its last one. In each step it
# takes the cells and their boxes by the number of the frame, and the label maps by the number of the step: with two
# empty frames at the start, those of two frames before. Cells that move by less than their size are found there by
# chance, except in the first steps, where there is none; cells that move further are never found. `IOUMatcher` takes
# all from one frame and says 1. Who cuts recordings into pieces, or films until something enters the field, has such
# frames, and looks for the fault in the tracker. Where nothing is matched at all there is a warning that the mapping is
# empty; else there is none.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check traccuracy==0.4.3 numpy==2.4.6
cd "$folder"
export TQDM_DISABLE=1
cat > evaluate.py <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import tifffile
from traccuracy import run_metrics
from traccuracy.loaders import load_ctc_data
from traccuracy.matchers import CTCMatcher, IOUMatcher
from traccuracy.metrics import CTCMetrics

FRAMES, SIZE = 6, 8


def recording(empty, speed):
    """Three cells that move to the right, one below the other, after some frames without any."""
    frames = np.zeros((empty + FRAMES, 40, 80), np.uint16)
    for step in range(FRAMES):
        for cell in (1, 2, 3):
            frames[empty + step, 12 * cell - 10 : 12 * cell - 2, 4 + speed * step : 4 + speed * step + SIZE] = cell
    return frames


def evaluate(empty, speed, matcher):
    folder = Path(f'recording_{empty}_{speed}')
    if not folder.exists():
        folder.mkdir()
        frames = recording(empty, speed)
        for number, frame in enumerate(frames):
            tifffile.imwrite(folder / f'mask{number:03d}.tif', frame)
        spans = [f'{cell} {empty} {len(frames) - 1} 0\n' for cell in (1, 2, 3)]
        Path(folder, 'res_track.txt').write_text(''.join(spans))
    truth, result = (load_ctc_data(str(folder)) for _ in range(2))
    ((found,), _) = run_metrics(gt_data=truth, pred_data=result, matcher=matcher, metrics=[CTCMetrics()])
    return tuple(round(float(found['results'][key]), 3) for key in ('DET', 'TRA'))


seen = {}
for speed in (2, 10):
    for empty in (0, 1, 2):
        seen[speed, empty] = evaluate(empty, speed, CTCMatcher()), evaluate(empty, speed, IOUMatcher())
        print(f'cells of {SIZE} pixels that move {speed} a frame, {FRAMES} frames after {empty} empty, result equals',
              'reference: DET, TRA', *seen[speed, empty][0], 'by CTCMatcher,', *seen[speed, empty][1], 'by IOUMatcher')
right = 1.0, 1.0
if seen != {
    (2, 0): (right, right),
    (2, 1): ((0.817, 0.815), right),
    (2, 2): ((0.633, 0.63), right),
    (10, 0): (right, right),
    (10, 1): ((0.0, 0.0), right),
    (10, 2): ((0.0, 0.0), right),
}:
    sys.exit('changed: empty first frames no longer matter, or do so otherwise')
PYTHON
"$folder/venv/bin/python" evaluate.py 2> errors || { cat errors; exit 1; }
