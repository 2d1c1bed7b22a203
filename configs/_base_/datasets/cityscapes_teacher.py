# For the foundation teacher: whole images, which the teacher brings to the sizes of its components.
_base_ = './cityscapes.py'
whole = dict(pipeline=[*_base_.load, *_base_.flip, *_base_.filter_and_pack])
train_dataloader = dict(dataset=whole)
semi_dataloader = dict(
    dataset=dict(datasets=[dict(part, **whole) for part in _base_.semi_dataloader.dataset.datasets]))
