#!/usr/bin/env bash
# histolytics 0.3.0 (histology: nuclei as polygons and as label images): `gdf2inst`, which draws a label image of a
# table of polygons, numbers them by the table's index, and an index begins at 0, which is the background: the first
# nucleus is not drawn. `inst2gdf` of the same package makes such tables. A label image that goes there and back has an
# object less, and the others have other numbers, each that of the nucleus before it: what is measured on the new image
# and joined by `uid` belongs to a neighbour. It is right where the column is named (`id_col='uid'`), which neither the
# examples in its documentation do nor, by its source, its data set for training on slides.
# And `inst2gdf` with a `type_map` takes the least value of that for the background, whether it is 0 or not. A crop of
# confluent tissue has no background: there all objects of one type are left out, of six cells of two types three. One
# row of background makes it right. No message is given by either.
# Only what these functions import is installed. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip geopandas==1.1.2 rasterio==1.4.3 numpy==1.26.4 scipy==1.15.3 shapely==2.1.2 pandas==2.3.3
pip --no-deps histolytics==0.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
from histolytics.utils.raster import gdf2inst, inst2gdf

warnings.simplefilter('error')  # there is none
HEIGHT, WIDTH = 60, 80


def numbers(values):
    return [int(number) for number in np.unique(values) if number]


seen = {}
image = np.zeros((HEIGHT, WIDTH), np.int32)
for number, (top, left) in enumerate(((5, 5), (5, 30), (30, 5), (30, 30)), 1):
    image[top : top + 12, left : left + 12] = number
table = inst2gdf(image, smooth_func=None)
again = gdf2inst(table, width=WIDTH, height=HEIGHT)
named = gdf2inst(table, width=WIDTH, height=HEIGHT, id_col='uid')
seen['there and back'] = numbers(image), numbers(table['uid']), numbers(again), bool((named == image).all())
print('numbers in the image, in its table, in the image of the table, and whether that is the first one where the '
      'column is named:', *seen['there and back'])
seen['new numbers'] = {number: int(again[image == number].max()) for number in numbers(image)}
print('new numbers of the four:', seen['new numbers'])

cells = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((20, 20), int)).astype(np.int32)
types = np.where(cells % 2, 1, 2)
for name, rows in (('no background', 0), ('a row of background', 1)):
    cells[:rows], types[:rows] = 0, 0
    seen[name] = numbers(inst2gdf(cells, types, smooth_func=None)['uid'])
    print(f'six cells, {name}: in the table', seen[name])
if seen != {
    'there and back': ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3], True),
    'new numbers': {1: 0, 2: 1, 3: 2, 4: 3},
    'no background': [2, 4, 6],
    'a row of background': [1, 2, 3, 4, 5, 6],
}:
    sys.exit(f'changed: all nuclei are drawn, and those of all types are in the table: {seen}')
PYTHON
