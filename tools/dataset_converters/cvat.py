"""Converts CVAT's XML: ``mmcast convert cvat``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.cvat')
