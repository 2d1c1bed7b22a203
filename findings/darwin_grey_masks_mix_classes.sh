#!/usr/bin/env bash
# darwin-py 3.6.3 (V7's SDK): `darwin convert semantic_mask_grey` gives objects the colours of other classes where there
# are 16 classes or more. It recolours the image class by class, in place, and colours are themselves numbers of
# classes: of Pascal VOC's 20, aeroplane (number 1) becomes 12, and a moment later, as if it were class 12, a dog. Of
# COCO's 80 classes 25 are lost so. `class_mapping.csv` lists a colour for each class; up to 15 classes the image agrees
# with it. `semantic_mask_index` is right for the same files.
# And `instance_mask` and `yolo_segmented` leave objects out that were brushed (masks in a raster layer): of three
# objects below, one of them a polygon, each writes the polygon. `coco` writes all three.
# Each command ends with "Converted annotations saved" and status 0, and no word of either.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check darwin-py==3.6.3
cd "$folder"
cat > write.py <<'PYTHON'
import json
from pathlib import Path

HEIGHT = 20
VOC = ('aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant'
       ' sheep sofa train tvmonitor').split()
CLASSES = {'few': VOC[:15], 'sixteen': VOC[:16], 'voc': VOC, 'coco': [f'class{number:02}' for number in range(1, 81)]}


def annotation(number, name, **shape):
    return dict(id=f'00000000-0000-4000-8000-{number:012}', name=name, slot_names=['0'], properties=[], **shape)


def rectangle(number, name, x, y, w, h):
    points = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    return annotation(number, name, polygon=dict(paths=[[dict(x=px, y=py) for px, py in points]]),
                      bounding_box=dict(x=x, y=y, w=w, h=h))


def save(stem, width, annotations):
    slot = dict(type='image', slot_name='0', width=width, height=HEIGHT, source_files=[dict(file_name=f'{stem}.png')])
    item = dict(name=f'{stem}.png', path='/', slots=[slot])
    Path(f'{stem}.json').write_text(json.dumps(dict(version='2.0', item=item, annotations=annotations)))


if __name__ == '__main__':
    for stem, names in CLASSES.items():  # an object of each class, side by side
        save(stem, 10 * len(names),
             [rectangle(place, name, 10 * place + 2, 2, 6, 15) for place, name in enumerate(names)])
    rows = [[1] * 12 + [0] * 12 + [2] * 12 + [0] * 4] * 10 + [[0] * 40] * 10  # two brushed cells of 12 x 10 pixels
    runs = []
    for value in sum(rows, []):
        if runs and runs[-2] == value:
            runs[-1] += 1
        else:
            runs += [value, 1]
    masks = [annotation(number, 'cell', mask=dict(sparse_rle=None)) for number in (1, 2)]
    layer = dict(dense_rle=runs, total_pixels=40 * HEIGHT,
                 mask_annotation_ids_mapping={mask['id']: number for number, mask in enumerate(masks, start=1)})
    save('cells', 40, [*masks, annotation(3, '__raster_layer__', raster_layer=layer),
                       rectangle(4, 'cell', 5, 12, 20, 6)])
PYTHON
"$folder/venv/bin/python" write.py
convert() {
    mkdir -p "$2/$1"
    "$folder/venv/bin/darwin" convert "$2" "$1.json" "$2/$1" > log 2>&1 || { cat log; exit 1; }
    if grep -Eiq 'warn|error|skip' log; then cat log; fi
}
for stem in few sixteen voc coco; do
    convert "$stem" semantic_mask_grey
    convert "$stem" semantic_mask_index
done
for format in instance_mask yolo_segmented coco; do
    convert cells "$format"
done
"$folder/venv/bin/python" - <<'PYTHON'
import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from write import CLASSES

wrong = {}
for stem, names in CLASSES.items():
    for kind in ('semantic_mask_grey', 'semantic_mask_index'):
        root = Path(kind) / stem
        with open(root / 'class_mapping.csv', newline='') as file:
            colours = {row['class_name']: int(row['class_color']) for row in csv.DictReader(file)}
        classes = {colour: name for name, colour in colours.items()}
        image = np.array(Image.open(root / 'masks' / f'{stem}.png'))
        read = [classes.get(int(image[9, 10 * place + 5])) for place in range(len(names))]
        mixed = [f'{name} is {other}' for name, other in zip(names, read) if name != other]
        wrong[stem, kind] = len(mixed)
        print(f'{kind}, {len(names)} classes: {len(mixed)} wrong', *(mixed[:1] + ['...'] if len(mixed) > 1 else mixed))
counts = [len(list(Path('instance_mask/cells/masks').glob('*.png'))),
          len(Path('yolo_segmented/cells/cells.txt').read_text().splitlines()),
          len(json.loads(Path('coco/cells/output.json').read_text())['annotations'])]
print('two brushed objects and a polygon: instance_mask, yolo_segmented and coco have', *counts, 'objects')
grey = [wrong[stem, 'semantic_mask_grey'] for stem in CLASSES]
index = [wrong[stem, 'semantic_mask_index'] for stem in CLASSES]
if (grey, index, counts) != ([0, 1, 1, 25], [0, 0, 0, 0], [1, 1, 3]):
    sys.exit('changed: classes keep their colours, or brushed objects are written')
PYTHON
