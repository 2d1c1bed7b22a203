#!/usr/bin/env bash
# mmengine 0.10.7: `Config.dump` (and `pretty_text`) writes the keys of every dict in alphabetical order. A
# config whose order of keys means something (steps of a pipeline, an ordered mapping of class names) reads
# back in another order, although dicts keep theirs everywhere else in Python and in MMEngine's own merging of bases.
# Lists are left as they are. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mmengine-lite==0.10.7 packaging==25.0 "setuptools<81"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

from mmengine.config import Config

path = f'{sys.argv[1]}/dumped.py'
config = Config(dict(steps=dict(prepare=1, train=2, evaluate=3)))
print('in memory:', list(config.steps))
config.dump(path)
found = list(Config.fromfile(path).steps)
print('read back:', found)
if found != ['evaluate', 'prepare', 'train']:
    sys.exit('changed: the order of keys survives')
PYTHON
