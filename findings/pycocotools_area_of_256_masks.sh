#!/usr/bin/env bash
# pycocotools 2.0.11 with NumPy 2.2.6: `mask.area` of 255 masks in one call works, of 256 it raises an
# OverflowError, whatever the size of the masks. `toBbox` and `iou` take any number. With NumPy 1 the same
# call works. An image with more than 255 instances is enough (cells, crowds, all stored candidates of a
# teacher); callers have to hand the masks over in parts of at most 255.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from pycocotools import mask

one = mask.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))
print('255 masks:', set(mask.area([one] * 255).tolist()))
print('boxes of 256 masks:', mask.toBbox([one] * 256).shape)
try:
    print('256 masks:', set(mask.area([one] * 256).tolist()))
    sys.exit('changed: 256 masks in one call work now')
except OverflowError as error:
    print('256 masks: OverflowError:', error)
PYTHON
