"""Lets a teacher label images: ``mmcast label``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.label')
