from .loading import LoadImage
from .pseudo_labeled import PseudoLabelDataset
from .unlabeled import UnlabeledDataset

__all__ = ['LoadImage', 'PseudoLabelDataset', 'UnlabeledDataset']
