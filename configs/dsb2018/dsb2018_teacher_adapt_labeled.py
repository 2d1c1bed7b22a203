# Step 1a: the teacher on the labeled images, l_semi = 0, l_pxl on.
_base_ = [
    '../_base_/models/dsb2018_teacher.py', '../_base_/datasets/dsb2018.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

train_cfg = dict(max_iters=1000, val_interval=1000)
