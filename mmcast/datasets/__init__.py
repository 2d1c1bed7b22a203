from .loading import LoadCompressedAnnotations, LoadConfidenceMap, LoadImage
from .pseudo_labeled import PseudoLabelDataset
from .samplers import ResumableGroupMultiSourceSampler
from .unlabeled import UnlabeledDataset

__all__ = [
    'LoadCompressedAnnotations', 'LoadConfidenceMap', 'LoadImage', 'PseudoLabelDataset',
    'ResumableGroupMultiSourceSampler', 'UnlabeledDataset'
]
