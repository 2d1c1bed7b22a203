"""Trains a config or runs a pipeline: ``mmcast train``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.train')
