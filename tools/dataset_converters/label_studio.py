"""Converts Label Studio's JSON: ``mmcast convert label_studio``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.label_studio')
