"""Labels that a teacher makes."""
from .generate import generate_pseudo_labels

__all__ = ['generate_pseudo_labels']
