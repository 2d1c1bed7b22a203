# How the toy student's pretrained encoder was made, the stand-in for public DINOv2 weights: the student trained on the
# source domain, of which tools/make_toy_weights.py keeps the encoder.
_base_ = [
    '../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes_source.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(detector=dict(backbone=dict(init_cfg=None)), pixel_contrast=None)
train_cfg = dict(max_iters=2500, val_interval=500)
