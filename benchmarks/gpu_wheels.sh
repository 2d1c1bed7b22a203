#!/usr/bin/env bash
# Collect into DIR what an offline Linux x86-64 host with Python 3.12, torch, torchvision, transformers, timm, peft
# and OpenCV still needs for benchmarks/gpu.sh and the tests (about 12 MB). Usage: benchmarks/gpu_wheels.sh DIR
set -euo pipefail
dir=${1:?usage: gpu_wheels.sh DIR}
mkdir -p "$dir"
export PIP_CONSTRAINT=/dev/null
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2014 1; do
  platforms+=(--platform "manylinux${glibc/#2_/_2_}_x86_64")
done
for spec in onedl-mmengine==0.10.12 faster-coco-eval==1.8.0 hotcoco==1.3.0 cityscapesscripts==2.3.0 pycocotools addict yapf \
  platformdirs terminaltables shapely mat4py modelindex model-index ordered-set termcolor imaug 'filelock>=3.30' \
  importlib-metadata==8.7.0 zipp appdirs coloredlogs humanfriendly pyquaternion; do
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" -d "$dir" "$spec"
done
# Source-only packages, built pure Python: no compiled operators.
MMCV_WITH_OPS=0 python3 -m pip wheel -q --no-deps --no-cache-dir onedl-mmcv==2.3.6 -w "$dir"
python3 -m pip wheel -q --no-deps onedl-mmdetection==3.4.5 onedl-mmpretrain==1.3.6 -w "$dir"
du -sh "$dir"
