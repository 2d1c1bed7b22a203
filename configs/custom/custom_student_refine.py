# Step 3: refine the transferred student on the labels alone, l_semi = 0, at a lower learning rate.
_base_ = ['../_base_/models/custom_student.py', '../_base_/datasets/custom.py', '../_base_/schedules/toy.py']
model = dict(pixel_contrast=None)
load_from = 'work_dirs/cast_custom/transfer.pth'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=200, val_interval=200)
