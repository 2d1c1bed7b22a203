"""Size and speed of models: ``mmcast benchmark``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.benchmark')
