"""Labels that a teacher makes."""

from mmcast.lazy import attach

__all__ = ['PseudoLabelDataset', 'generate_pseudo_labels']

__getattr__, __dir__ = attach(
    __name__, {'dataset': ['PseudoLabelDataset'], 'generate': ['generate_pseudo_labels']}
)
