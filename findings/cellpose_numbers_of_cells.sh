#!/usr/bin/env bash
# cellpose 4.2.1.1: the number of cells goes wrong in two places. `metrics.average_precision` takes the number of
# different values in an image, less one for the background, for the number of cells. A crop of confluent tissue has no
# background: there it misses a cell of the truth, of the result, or of both. Twelve cells that are found exactly have
# an AP of 1.2, with -1 false positives and -1 false negatives; where nine of the twelve are found it is 0.82 in place
# of 0.75. One column of background makes it right. The only sign of it is NumPy's warning of an invalid value. And
# `utils.stitch3D`, by which `eval(stitch_threshold=...)` makes cells of the planes of a stack, numbers from 1 again
# where an empty plane follows before two planes in a row had cells. Three specks in the first plane, nothing in the
# second and five cells in the others come back as five numbers: three of them are a speck and a cell at once, and
# volumes, boxes and centres are those of both together. An empty plane further on is harmless. Who crops epithelium, or
# has dirt on the coverslip, is hit. Neither function needs torch, which cellpose imports for its version: an empty
# module stands in, so that nothing large is installed.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 scipy==1.17.1 fastremap==1.21.0 \
    fill-voids==2.1.2 opencv-python-headless==4.12.0.88 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps cellpose==4.2.1.1
cd "$folder"
cat > count.py <<'PYTHON'
import sys
import types

import numpy as np

sys.modules['torch'] = types.SimpleNamespace(__version__='not installed')
from cellpose import metrics, utils

truth = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((10, 10), int))  # twelve cells, side by side
results = {'all found': truth, 'nine of twelve found': np.where(truth > 9, 0, truth)}
seen = {}
for name, result in results.items():
    for place, pixels in (('no background', 0), ('a column of background', 1)):
        around = ((0, 0), (0, pixels))
        counts = metrics.average_precision(np.pad(truth, around), np.pad(result, around), threshold=0.5)
        seen[name, place] = [round(float(count[0]), 3) for count in counts]
        print(f'{name}, {place} in the image: AP, true positives, false positives, false negatives', *seen[name, place])


def stack(planes):
    """Planes with five cells, with three specks, or empty ones."""
    volume = np.zeros((len(planes), 20, 60), np.uint16)
    for plane, kind in zip(volume, planes):
        for number in range({'specks': 3, 'cells': 5, 'empty': 0}[kind]):
            top, left, size = (8, 12 * number, 10) if kind == 'cells' else (2, 20 * number, 4)
            plane[top : top + size, left : left + size] = number + 1
    return volume


for planes in ('specks empty cells cells', 'specks specks empty cells cells', 'specks cells cells'):
    joined = utils.stitch3D(stack(planes.split()))
    specks, cells = (set(np.unique(plane[plane > 0]).tolist()) for plane in (joined[0], joined[-1]))
    seen[planes] = [len(specks | cells), len(specks & cells)]
    print(f'planes: {planes}; 8 objects, {seen[planes][0]} numbers, {seen[planes][1]} of them for a speck and a cell')
if seen != {
    ('all found', 'no background'): [1.2, 12.0, -1.0, -1.0],
    ('all found', 'a column of background'): [1.0, 12.0, 0.0, 0.0],
    ('nine of twelve found', 'no background'): [0.818, 9.0, 0.0, 2.0],
    ('nine of twelve found', 'a column of background'): [0.75, 9.0, 0.0, 3.0],
    'specks empty cells cells': [5, 3],
    'specks specks empty cells cells': [8, 0],
    'specks cells cells': [8, 0],
}:
    sys.exit('changed: cells are counted or numbered otherwise')
PYTHON
"$folder/venv/bin/python" count.py 2> errors || { cat errors; exit 1; }
