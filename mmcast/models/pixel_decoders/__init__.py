from .dpt import DPTPixelDecoder

__all__ = ['DPTPixelDecoder']
