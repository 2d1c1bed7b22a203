# Step 1b: the teacher again from the start, on labeled and pseudo-labeled images, l_semi = 1, l_pxl on.
_base_ = [
    '../_base_/models/dsb2018_teacher.py', '../_base_/datasets/dsb2018_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_cfg = dict(max_iters=1200, val_interval=1200)
