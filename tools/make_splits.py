"""Splits a data set into labeled and unlabeled images: ``mmcast split``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.split')
