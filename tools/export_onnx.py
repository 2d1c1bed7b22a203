"""Writes a student as one ONNX file: ``mmcast onnx``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.onnx')
