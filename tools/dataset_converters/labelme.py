"""Converts Labelme's JSON files: ``mmcast convert labelme``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.labelme')
