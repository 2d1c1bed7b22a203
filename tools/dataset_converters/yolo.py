"""Converts YOLO-seg: ``mmcast convert yolo``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.yolo')
