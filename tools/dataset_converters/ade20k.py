"""Converts ADE20K: ``mmcast convert ade20k``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.ade20k')
