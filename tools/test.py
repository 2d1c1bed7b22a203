"""Tests a checkpoint: ``mmcast test``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.test')
