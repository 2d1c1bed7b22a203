# Step 3: refine the transferred student on the labels alone, l_semi = l_pxl = 0, at a lower learning rate.
_base_ = ['../_base_/models/dsb2018_student.py', '../_base_/datasets/dsb2018.py',
          '../_base_/schedules/toy.py']
model = dict(pixel_contrast=None)
load_from = 'work_dirs/cast_dsb2018/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_iters=600, val_interval=600)
