#!/usr/bin/env bash
# funtracks 2.2.0 (the data library of motile-tracker): where a frame of a recording has no cell, the cells of the next
# frame are linked to nothing. `compute_graph_from_seg`, which lists the links that a tracker may choose from, joins
# "adjacent frames". It remembers the cells of the last frame; at a gap it goes on without a change, so that these are
# still the cells before the gap when it comes to those after it. Of frames 0 to 7, with 3 empty, frame 5 is linked to
# frame 2 and not to frame 4, and a track that reaches frame 5 comes from there. Where cells move further than the
# allowed distance in three frames, as where it was chosen for one, tracks begin at frame 5, and cells of frame 4 stand
# alone; with frames 2 and 5 empty, frames 0 and 1 are linked and no others. `compute_graph_from_points_list` does the
# same; the IoU of a link over the gap is that of no overlap, 0. No message is given. A frame that is out of focus or
# dark is enough, and it looks as if the tracker failed two frames later. (motile-toolbox 0.4.0, an older place of the
# function, has the same lines.) Installs 1.3 GB. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check funtracks==2.2.0 tracksdata==0.1.0rc12 numpy==2.4.6
cd "$folder"
cat > links.py <<'PYTHON'
import sys
import warnings

import numpy as np
from funtracks.candidate_graph import compute_graph_from_points_list, compute_graph_from_seg

FRAMES, CELLS = 8, 2


def positions(empty):
    """Of each cell the frame, and the upper left corner: two cells that move by 3 pixels a frame."""
    return [
        (frame, 30 * cell + 5, 3 * frame + 5) for frame in range(FRAMES) if frame not in empty for cell in range(CELLS)]


def links(graph):
    """Between which frames there are links, one for each of the cells, and the mean IoU of each."""
    nodes, edges = graph.node_attrs(attr_keys=['node_id', 't']), graph.edge_attrs()
    times = dict(zip(nodes['node_id'], nodes['t']))
    pairs = [(times[start], times[end]) for start, end in zip(edges['source_id'], edges['target_id'])]
    assert all(pairs.count(pair) == CELLS for pair in pairs)
    ious = edges['iou'] if 'iou' in edges.columns else [0] * len(pairs)
    return {f'{pair[0]}-{pair[1]}': round(iou, 2) for pair, iou in sorted(zip(pairs, ious))}


seen = {}
for name, empty, distance in (
        ('no frame empty', (), 20), ('frame 3 empty', (3,), 20), ('frame 3 empty, 5 pixels allowed', (3,), 5),
        ('frames 2 and 5 empty, 5 pixels allowed', (2, 5), 5)):
    labels = np.zeros((FRAMES, 60, 60), np.int32)
    for number, (frame, top, left) in enumerate(positions(empty), 1):
        labels[frame, top : top + 8, left : left + 8] = number
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # there is none
        found = links(compute_graph_from_seg(labels, distance, iou=True))
        points = links(compute_graph_from_points_list(np.array(positions(empty), float), distance))
    assert list(points) == list(found), points
    seen[name] = ' '.join(found)
    print(f'{name}: linked frames {seen[name]}; without overlap', *(pair for pair in found if not found[pair]))
if seen != {
    'no frame empty': '0-1 1-2 2-3 3-4 4-5 5-6 6-7',
    'frame 3 empty': '0-1 1-2 2-5 5-6 6-7',
    'frame 3 empty, 5 pixels allowed': '0-1 1-2 5-6 6-7',
    'frames 2 and 5 empty, 5 pixels allowed': '0-1',
}:
    sys.exit(f'changed: the frame after an empty one is linked to the next: {seen}')
PYTHON
"$folder/venv/bin/python" links.py 2> errors || { cat errors; exit 1; }
