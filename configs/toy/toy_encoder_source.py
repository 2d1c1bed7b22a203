# How the toy student's pretrained encoder was made, the stand-in for public DINOv2 weights: the student trained on the
# source domain, of which tools/make_toy_weights.py keeps the encoder.
_base_ = [
    '../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes_source.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(detector=dict(backbone=dict(init_cfg=None)), pixel_contrast=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0, power=0.9, by_epoch=False, begin=0, end=2500),
]
train_cfg = dict(max_iters=1600, val_interval=800)
