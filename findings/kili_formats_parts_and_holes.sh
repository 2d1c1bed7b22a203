#!/usr/bin/env bash
# kili-formats 1.7.1 (the exports of Kili's SDK): `convert_from_kili_to_coco_format` writes other objects than were
# labeled where a mask has parts or holes. Kili keeps a mask as parts that share an id (`mid`), and in each part the
# outline comes first, then its holes. To COCO each part becomes an object of its own, and a hole one more polygon of
# `segmentation`, which COCO's readers add: it is filled. `area`, by contrast, is that without the hole, so that the
# file contradicts itself. A ring of 1,200 pixels is one of 1,600 (IoU 0.75), of an object in two equal parts no
# annotation has more than a half (IoU 0.5). The same package's GeoJSON has the hole and both parts, as one object, for
# the same labels, and COCO has run lengths for both. No message is given. Whose objects are seen behind posts and
# branches, or have holes, trains and evaluates on others than were labeled.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'kili-formats[coco]==1.7.1' numpy==2.2.6 \
    shapely==2.1.2 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from kili_formats import convert_from_kili_to_coco_format, convert_from_kili_to_geojson_format
from pycocotools import mask as api
from shapely.affinity import scale
from shapely.geometry import shape

SIDE = 100
RING = [(10, 10, 50, 50), (20, 20, 40, 40)]  # left, top, right, bottom of the outline and of the hole
PARTS = [(60, 10, 70, 30), (80, 10, 90, 30)]
PLAIN = [(60, 60, 90, 80)]


def vertices(left, top, right, bottom):
    corners = (left, top), (right, top), (right, bottom), (left, bottom)
    return dict(normalizedVertices=[dict(x=x / SIDE, y=y / SIDE) for x, y in corners])


def part(mid, *rings):
    return dict(
        mid=mid, type='semantic', categories=[dict(name='CAR', confidence=100)], children={},
        boundingPoly=[vertices(*ring) for ring in rings])


def mask(added, removed=()):
    """The labeled mask."""
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    for boxes, value in ((added, 1), (removed, 0)):
        for left, top, right, bottom in boxes:
            drawn[top:bottom, left:right] = value
    return drawn


labeled = dict(ring=mask(RING[:1], RING[1:]), parts=mask(PARTS), plain=mask(PLAIN))
annotations = [part('ring', *RING), *(part('parts', one) for one in PARTS), part('plain', *PLAIN)]
response = dict(JOB=dict(annotations=annotations))
asset = dict(
    externalId='a.jpg', content='', resolution=dict(width=SIDE, height=SIDE), latestLabel=dict(jsonResponse=response))
job = dict(content=dict(categories=dict(CAR=dict(name='Car'))), tools=['semantic'], mlTask='OBJECT_DETECTION')
coco = convert_from_kili_to_coco_format(dict(JOB=job), [asset], 'title', 'IMAGE', None, merged=False)['annotations']
features = convert_from_kili_to_geojson_format(response)['features']
in_geojson = {one['id']: scale(shape(one['geometry']), SIDE, SIDE, origin=(0, 0)) for one in features}
in_coco = [api.merge(api.frPyObjects(one['segmentation'], SIDE, SIDE)) for one in coco]

seen = {'objects': (len(labeled), len(in_geojson), len(coco))}
print('objects: labeled, in GeoJSON, in COCO:', *seen['objects'])
for name, pixels in labeled.items():
    ious = api.iou(in_coco, [api.encode(np.asfortranarray(pixels))], [0])[:, 0]
    best = int(ious.argmax())
    seen[name] = (
        int(pixels.sum()), round(in_geojson[name].area), round(float(coco[best]['area'])), int(api.area(in_coco[best])),
        round(float(ious[best]), 2))
    print(f'{name}: {seen[name][0]} pixels, {seen[name][1]} in GeoJSON; in COCO an `area` of {seen[name][2]}, '
          f'{seen[name][3]} pixels by its API, IoU {seen[name][4]}')
if seen != {
    'objects': (3, 3, 4),
    'ring': (1200, 1200, 1200, 1600, 0.75),
    'parts': (400, 400, 200, 200, 0.5),
    'plain': (600, 600, 600, 600, 1.0),
}:
    sys.exit('changed: holes are holes in COCO, or parts one object')
PYTHON
