# How the toy's foundation teacher was made: supervised on the source domain, which looks different from the target
# domain of the pipeline. `python tools/make_toy_weights.py` writes the data, runs this and packs the weights.
_base_ = [
    '../_base_/models/toy_teacher.py', '../_base_/datasets/toy_cityscapes_source.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(pixel_contrast=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    # Stopped before the rate reaches zero: the adaptation anneals it.
    dict(type='PolyLR', eta_min=0, power=0.9, by_epoch=False, begin=0, end=3500),
]
train_cfg = dict(max_iters=2600, val_interval=1300)
