#!/usr/bin/env bash
# supervisely 6.74.51 (Supervisely's SDK): its export to Pascal VOC, `Project.to_pascal_voc`, has the two kinds of masks
# the wrong way round. In VOC `SegmentationClass` has a colour for each class, `SegmentationObject` one for each object.
# Here `SegmentationObject` has the classes' colours, those of `colors.txt`, so that objects of one class that touch are
# one region and cannot be told apart; and `SegmentationClass` has a colour for each object, drawn at random: none is
# that of a class. The files' names agree with the folders (`_class`, `_instance`), not with what is in them. Of two
# cars side by side and a dog, the mask of objects shows two things, and the mask of classes three.
# And pixel values, which VOC's readers take for numbers (0 is the background), are places in a palette that Pillow
# makes anew for each picture: the background is 2, 3 or 4 below, never 0, and another in each picture of other content.
# No message is given.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check supervisely==6.74.51 lxml==6.0.2 numpy==2.2.6
cd "$folder"
cat > export.py <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import supervisely as sly
from PIL import Image

HEIGHT, WIDTH = 48, 96
classes = {
    name: sly.ObjClass(name, sly.Bitmap, color=color)
    for name, color in dict(car=[255, 0, 0], dog=[0, 255, 0], tree=[0, 0, 255]).items()
}
# The classes of the objects of each picture, and where they are: rows, columns
PLACES = [(slice(8, 40), slice(10, 30)), (slice(8, 40), slice(30, 50)), (slice(12, 30), slice(60, 90))]
GROUND = 2, 2
pictures = dict(first=['car', 'car', 'dog'], second=['dog'], third=['tree', 'dog', 'car'])


def label(kind, place):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[place] = True
    return sly.Label(sly.Bitmap(mask), classes[kind])


project = sly.Project('project', sly.OpenMode.CREATE)
project.set_meta(sly.ProjectMeta(obj_classes=list(classes.values())))
data = project.create_dataset('data')
for picture, kinds in pictures.items():
    labels = [label(kind, place) for kind, place in zip(kinds, PLACES)]
    data.add_item_np(f'{picture}.png', np.zeros((HEIGHT, WIDTH, 3), np.uint8), sly.Annotation((HEIGHT, WIDTH), labels))
sly.Project('project', sly.OpenMode.READ).to_pascal_voc('voc', log_progress=False)

root = Path('voc/VOCdevkit/VOC')
lines = [line.split() for line in (root / 'colors.txt').read_text().splitlines()]
colors = {name: tuple(map(int, color)) for name, *color in lines}
assert {name: list(colors[name]) for name in classes} == {name: kind.color for name, kind in classes.items()}
middles = [((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2) for rows, columns in PLACES]
seen, values = {}, {}
for folder, ending in dict(SegmentationClass='class', SegmentationObject='instance').items():
    for picture, kinds in pictures.items():
        image = Image.open(root / folder / f'data_{picture}_{ending}.png')
        numbers, pixels = np.array(image), np.array(image.convert('RGB'))
        found = [tuple(int(value) for value in pixels[middle]) for middle in middles[: len(kinds)]]
        of_classes = sum(color == colors[kind] for color, kind in zip(found, kinds))
        seen[folder, picture] = len(kinds), len(set(kinds)), len(set(found)), of_classes
        values.setdefault((folder, 'background'), []).append(int(numbers[GROUND]))
        values.setdefault((folder, 'dog'), []).append(int(numbers[middles[kinds.index('dog')]]))
        print(f'{folder}, {picture} picture: objects {kinds}, {len(set(found))} colours, {of_classes} of them as in '
              f'colors.txt; the background has the value {numbers[GROUND]}')
for (folder, what), numbers in values.items():
    print(f'{folder}: values of {what} in the three pictures: {numbers}')
for (folder, picture), (objects, kinds, found, of_classes) in seen.items():
    if (found, of_classes) != ((objects, 0) if folder == 'SegmentationClass' else (kinds, objects)):
        sys.exit('changed: classes and objects are in their own folders')
if any(0 in numbers or len(set(numbers)) == 1 for (_, what), numbers in values.items() if what == 'background'):
    sys.exit('changed: the background is 0, or has one value')
PYTHON
"$folder/venv/bin/python" export.py 2> errors || { cat errors; exit 1; }
