#!/usr/bin/env bash
# py-ctcmetrics 1.3.3 (the Cell Tracking Challenge's measures in Python): cells with large numbers count as wrong. To
# tell result from reference apart it adds the reference's largest number + 1 to the result's image, within its 16 bits.
# Numbers may be up to 65535 there; where a sum is larger it begins again at 0. Below, a result that is the reference,
# pixel by pixel. Numbered from 1 its SEG, DET and TRA are 1; numbered from 32761 they are 0.75, 0.725 and 0.727, and
# numbered from 40001 they are 0. "Valid" is 1 throughout, and no message is given. Who counts all cells of a long
# recording, or of many recordings, on and on gets there, and looks for the fault in the tracker.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check py-ctcmetrics==1.3.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import tifffile
from ctc_metrics import evaluate_sequence

FRAMES, CELLS = 3, 8


def measures(first):
    root = Path('sequence')
    shutil.rmtree(root, ignore_errors=True)
    for name in ('01_GT/TRA', '01_GT/SEG', '01_RES'):
        (root / name).mkdir(parents=True)
    image = np.zeros((20, 20 * CELLS), np.uint16)
    for cell in range(CELLS):
        image[4:16, 20 * cell + 4 : 20 * cell + 16] = first + cell
    for frame in range(FRAMES):
        for name in (f'01_GT/TRA/man_track{frame:03}.tif', f'01_GT/SEG/man_seg{frame:03}.tif'):
            tifffile.imwrite(root / name, image)
        tifffile.imwrite(root / f'01_RES/mask{frame:03}.tif', image)
    tracks = ''.join(f'{first + cell} 0 {FRAMES - 1} 0\n' for cell in range(CELLS))
    for name in ('01_GT/TRA/man_track.txt', '01_RES/res_track.txt'):
        (root / name).write_text(tracks)
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluate_sequence(str(root / '01_RES'), str(root / '01_GT'), threads=1)
    return [round(float(found[name]), 3) for name in ('SEG', 'DET', 'TRA', 'Valid')]


seen = {}
for first in (1, 32761, 40001):
    seen[first] = measures(first)
    print(f'result equals reference, {CELLS} cells from number {first} on: SEG, DET, TRA, Valid', seen[first])
if list(seen.values()) != [[1.0, 1.0, 1.0, 1.0], [0.75, 0.725, 0.727, 1.0], [0.0, 0.0, 0.0, 1.0]]:
    sys.exit('changed: the numbers of cells no longer matter, or do so otherwise')
PYTHON
