#!/usr/bin/env bash
# timm 1.0.31 (torch 2.14.1): the maps of MobileViT v2 are not of the stride that `feature_info` states where a side
# of the image is no multiple of 64. Its blocks work on patches of 2x2 pixels of a map; an odd map is resized to the
# next even size, and v2, unlike v1, leaves it so. At 224x224 the map of "reduction 32" has 8x8 pixels instead of
# 7x7, each for 28 pixels of the image, without a word. Whoever places anchors, points or boxes by `reduction` is off
# by up to an eighth of the image at the far side; v1 gives 7x7. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"$folder/venv/bin/python" - <<'PYTHON'
import timm
import torch

sizes = {}
for name in ('mobilevit_xs', 'mobilevitv2_050'):
    model = timm.create_model(name, features_only=True).eval()
    assert model.feature_info.reduction()[-1] == 32
    for side in (192, 224, 256):
        with torch.no_grad():
            sizes[name, side] = tuple(model(torch.zeros(1, 3, side, side))[-1].shape[2:])
for key, size in sizes.items():
    print(*key, size)
assert sizes['mobilevit_xs', 224] == (7, 7), 'v1 resizes back'
assert sizes['mobilevitv2_050', 192] == (6, 6) and sizes['mobilevitv2_050', 256] == (8, 8)
assert sizes['mobilevitv2_050', 224] == (8, 8), 'fixed: the map is of the stated stride'
PYTHON
echo 'As described.'
