from .unlabeled import UnlabeledDataset

__all__ = ['UnlabeledDataset']
