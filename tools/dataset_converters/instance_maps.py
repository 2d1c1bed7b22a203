"""Converts maps of numbered objects: ``mmcast convert instance_maps``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.instance_maps')
