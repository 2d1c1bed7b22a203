# How the toy's foundation teacher was made, first part: supervised on scenes of a clear day.
# `python tools/make_toy_weights.py` writes the data, runs this and toy_teacher_varied.py, packs the weights.
_base_ = ['../_base_/models/toy_teacher.py', '../_base_/datasets/toy_cityscapes_source.py',
          '../_base_/schedules/toy.py']
model = dict(pixel_contrast=None)
train_cfg = dict(max_iters=3500, val_interval=500)
