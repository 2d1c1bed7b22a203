#!/usr/bin/env bash
# panoptica 2.1.7 (panoptic quality of label maps), NumPy 2.2.6: a result that equals its
# reference, pixel by pixel, has a PQ of 0 where there are 255 objects, and 1 where there are 254 or 256. Whatever type
# the maps have, it converts them to the smallest integers that hold their labels, and in these computes the largest
# label + 1, which is 0 after 255 and after 65535. The only sign of it is NumPy's warning of an overflow. A map with
# labels 1 and 255 raises an error instead. And first of all it crops both maps to where their sum is not 0. In 8 bits
# 128 + 128 is 0, too (as is any sum of 256): the object that lies outermost is cut off if it has number 128 in both
# maps. Of 128 objects that are numbered from top to bottom this is the last one. Unmatched instances then count 127
# objects, as if there were no more; matched instances, of which it takes the numbers before it crops, have a false
# positive and a false negative.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check panoptica==2.1.7 numpy==2.2.6
cd "$folder"
export PANOPTICA_CITATION_REMINDER=False
cat > evaluate.py <<'PYTHON'
import sys

import numpy as np
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator

COLUMNS = 16


def label_map(number, dtype):
    """Squares of 6 x 6 pixels, numbered from top to bottom; the last one lies lowest, by itself."""
    image = np.zeros((8 * (number // COLUMNS + 2), 8 * COLUMNS), dtype)
    for place in range(number):
        row, column = divmod(place, COLUMNS) if place < number - 1 else (image.shape[0] // 8 - 1, 3)
        image[8 * row + 1 : 8 * row + 7, 8 * column + 1 : 8 * column + 7] = place + 1
    return image


def evaluate(number, kind, dtype=np.int32):
    image = label_map(number, dtype)
    evaluator = Panoptica_Evaluator(expected_input=kind, instance_matcher=NaiveThresholdMatching())
    (result,) = evaluator.evaluate(image.copy(), image.copy(), verbose=False).values()
    return result.tp, result.fp, result.fn, round(float(result.pq), 3)


seen = {}
for number in (127, 128, 129, 254, 255, 256):
    for kind in (InputType.UNMATCHED_INSTANCE, InputType.MATCHED_INSTANCE):
        seen[number, kind.name] = evaluate(number, kind)
        print(f'{number} objects, result equals reference, {kind.name}: true positives, false positives,',
              'false negatives, PQ', seen[number, kind.name])
types = {evaluate(255, InputType.UNMATCHED_INSTANCE, dtype) for dtype in (np.uint8, np.uint16, np.int64)}
expected = {key: (key[0], 0, 0, 1.0) for key in seen}
expected[255, 'UNMATCHED_INSTANCE'] = (254, 0, 1, 0.0)
expected[128, 'UNMATCHED_INSTANCE'] = (127, 0, 0, 1.0)
expected[128, 'MATCHED_INSTANCE'] = (127, 1, 1, 0.992)
if seen != expected or types != {(254, 0, 1, 0.0)}:
    sys.exit('changed: the number of objects no longer matters, or does so otherwise')
PYTHON
"$folder/venv/bin/python" evaluate.py > seen 2> errors || { cat seen errors; exit 1; }
grep objects, seen
echo "lines of warnings that name an overflow: $(grep -c 'Warning: overflow' errors)"
