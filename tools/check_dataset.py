"""Looks for mistakes in a data set: ``mmcast check``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.check')
