# Own images for a foundation teacher, which brings an image or a window to its own size: no change of colour,
# and sizes that step `plan` of cast_custom_foundation.py decides.
_base_ = './custom.py'
larger = (2048, 1024)
whole = dict(
    pipeline=[
        *_base_.load,
        dict(type='RandomResize', scale=larger, ratio_range=(1.0, 1.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(2048, 2048), allow_negative_crop=True),
        *_base_.flip, *_base_.filter_and_pack])
train_dataloader = dict(dataset=whole)
semi_dataloader = dict(
    dataset=dict(datasets=[dict(part, **whole) for part in _base_.semi_dataloader.dataset.datasets]))
