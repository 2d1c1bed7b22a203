#!/usr/bin/env bash
# cellacdc 1.8.1 (Cell-ACDC): two of its utilities give back other objects than they got.
# "Track sub-cellular objects" gives each nucleus the number of its cell. With "Only track", which is to keep the nuclei
# that lie in no cell, these get the next numbers after the largest one of a nucleus with a cell, which are numbers of
# cells, too. Where two of four cells have a nucleus, two stray nuclei become those of the other two cells, at any
# distance. And in a recording it asks whether a number was tracked in any frame. Nuclei that were segmented frame by
# frame are numbered from 1 in each: a stray one vanishes if its number is that of a tracked one in another frame. Of
# four strays in two frames none is left below; with numbers that occur once all four are. "Delete cells" does the same.
# "Create connected 3D segmentation mask", `connect_3Dlab_zboundaries`, writes an object that is in one plane only into
# its input in place of its result: it is gone. Of three objects two are left. No message is given by either. Who
# measures nuclei, or things of few planes, misses some and gives others to the wrong cell. Run without the windows, by
# the functions that they call. Installs 1 GB. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cellacdc==1.8.1 numpy==2.4.6 pandas==2.3.3 \
    scipy==1.17.1 scikit-image==0.26.0
cd "$folder"
export HOME="$folder"  # it makes a folder of settings there
cat > run.py <<'PYTHON'
import sys

import numpy as np
from cellacdc.core import connect_3Dlab_zboundaries, track_sub_cell_objects


def draw(*places, size=4):
    """A label image with squares at these places, numbered from 1."""
    image = np.zeros((60, 80), np.uint16)
    for number, (top, left) in enumerate(places, 1):
        image[top : top + size, left : left + size] = number
    return image


def numbers(image):
    return [int(number) for number in np.unique(image) if number]


seen = {}
cells = draw((5, 5), (5, 25), (5, 45), (5, 65), size=12)
STRAY = (45, 9), (45, 49)
nuclei = draw((9, 9), (9, 29), *STRAY)
for how in ('only_track', 'delete_cells'):
    tracked = track_sub_cell_objects(cells, nuclei, 0.5, how=how, SizeT=1)[0]
    given = [int(tracked[top, left]) for top, left in STRAY]
    seen[how] = given, [cells[tracked == number].any().item() for number in given]
    print(f'{how}: stray nuclei have the numbers {given}, in no cell; cells have {numbers(cells)}, of which 1 and 2 '
          'have a nucleus')

frames = np.stack([draw((9, 9), (9, 29), *STRAY), draw(*STRAY, (9, 9), (9, 29))])
tracked = track_sub_cell_objects(np.stack([cells, cells]), frames, 0.5, how='only_track')[0]
seen['recording'] = [sum(bool(frame[place]) for place in STRAY) for frame in tracked]
print('a recording: of two stray nuclei in each frame are left', seen['recording'])
frames[1] = np.where(frames[1], frames[1] + 4, 0)
tracked = track_sub_cell_objects(np.stack([cells, cells]), frames, 0.5, how='only_track')[0]
seen['numbered on'] = [sum(bool(frame[place]) for place in STRAY) for frame in tracked]
print('the same with numbers that occur once:', seen['numbered on'])

stack = np.zeros((5, 60, 80), np.uint16)
stack[2] = draw((5, 5), size=10)
stack[1:4, 30:40, 5:15], stack[1:3, 30:40, 30:40] = 2, 3
connected = connect_3Dlab_zboundaries(stack.copy())
seen['planes'] = numbers(stack), numbers(connected)
print('connected in depth: numbers', *seen['planes'])
if seen != {
    'only_track': ([3, 4], [False, False]),
    'delete_cells': ([3, 4], [False, False]),
    'recording': [0, 0],
    'numbered on': [2, 2],
    'planes': ([1, 2, 3], [2, 3]),
}:
    sys.exit(f'changed: stray nuclei and flat objects are kept: {seen}')
PYTHON
"$folder/venv/bin/python" run.py 2> errors || { cat errors; exit 1; }
