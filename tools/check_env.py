"""Says what is installed, what is wrong, and what to type: ``mmcast env``."""

import sys
from pathlib import Path

try:
    from mmcast.cli.command import run_tool
except ModuleNotFoundError:  # not installed yet, which is a thing to report
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.env')
