"""Data sets, transforms and samplers of mmdet's kinds, and cheap checks of a config's data."""

from mmcast.data.coco_names import CocoDataset, CocoMetric
from mmcast.data.corruption import Corrupt
from mmcast.data.label_scores import FilterAnnotations, PackDetInputs
from mmcast.data.loading import LoadCompressedAnnotations, LoadConfidenceMap, LoadImage
from mmcast.data.mixing import CopyPasteInstances, MixUpInstances, MosaicInstances
from mmcast.data.samplers import ResumableGroupMultiSourceSampler, ResumableMultiSourceSampler
from mmcast.data.unlabeled import UnlabeledDataset

__all__ = [
    'CocoDataset',
    'CocoMetric',
    'CopyPasteInstances',
    'Corrupt',
    'FilterAnnotations',
    'LoadCompressedAnnotations',
    'LoadConfidenceMap',
    'LoadImage',
    'MixUpInstances',
    'MosaicInstances',
    'PackDetInputs',
    'ResumableGroupMultiSourceSampler',
    'ResumableMultiSourceSampler',
    'UnlabeledDataset',
]
