# For the foundation teacher: whole images, which the teacher brings to the sizes of its components.
_base_ = './ade20k.py'
whole = dict(pipeline=[*_base_.load, *_base_.flip, *_base_.filter_and_pack])
train_dataloader = dict(dataset=whole)
semi_dataloader = dict(
    dataset=dict(datasets=[dict(part, **whole) for part in _base_.semi_dataloader.dataset.datasets]))
original_size = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
test_pipeline = [*_base_.load_image, original_size, *_base_.load_masks, *_base_.pack]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
