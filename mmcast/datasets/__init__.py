from .loading import LoadCompressedAnnotations, LoadImage
from .pseudo_labeled import PseudoLabelDataset
from .unlabeled import UnlabeledDataset

__all__ = ['LoadCompressedAnnotations', 'LoadImage', 'PseudoLabelDataset', 'UnlabeledDataset']
