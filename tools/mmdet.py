"""Runs MMDetection's own tools with mmcast's registries: ``python tools/mmdet.py NAME ARGS``."""

import importlib
import sys
from pathlib import Path

# A script's folder comes first on the path: there this file would hide the package mmdet.
_FOLDER = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or '.').resolve() != _FOLDER]

if __name__ == '__main__':
    from mmcast.cli.mmdet import main

    main()
else:  # another tool of this folder imports the package and found this file
    del sys.modules[__name__]
    importlib.import_module(__name__)
