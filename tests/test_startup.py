"""What is imported before it is needed."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import mmcast.coco
import mmcast.masks

ROOT = Path(__file__).parents[1]
SINGLE = ('errors', 'files', 'images', 'locks', 'lazy', 'memory', 'version', 'compat', 'configs')
# Prints each module that brings a large library along with the libraries.
LOOK = """
import importlib, sys
LARGE = {'torch', 'torchvision', 'mmdet', 'mmengine', 'mmcv', 'mmpretrain', 'transformers', 'scipy'}
seen = set()
for name in sys.argv[1:]:
    importlib.import_module(name)
    new = LARGE & set(sys.modules) - seen
    seen |= new
    if new:
        print(name, *sorted(new))
"""


def test_the_ground_floors_need_neither_torch_nor_openmmlab():
    names = [f'mmcast.{name}' for name in (*SINGLE, 'environment', 'cli.main')]
    for package in (mmcast.masks, mmcast.coco):
        found = pkgutil.walk_packages(package.__path__, f'{package.__name__}.')
        names += [package.__name__, *(module.name for module in found)]
    assert {'mmcast.coco.custom', 'mmcast.coco.converters.ade20k', 'mmcast.masks.rle'} < set(names)
    done = subprocess.run(
        [sys.executable, '-c', LOOK, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_public_names_are_imported_when_they_are_asked_for():
    code = (
        'import sys, mmcast\n'
        'mmcast.train, mmcast.test, mmcast.make_split, mmcast.predict\n'
        'print({"torch", "mmdet", "mmengine"} & set(sys.modules), mmcast.train.__module__)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == 'set() mmcast.cli.train\n', done.stderr
