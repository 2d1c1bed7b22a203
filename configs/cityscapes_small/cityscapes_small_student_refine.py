# Step 3: refine the transferred student on the labels alone, l_semi = l_pxl = 0, at a lower learning rate.
_base_ = ['../_base_/models/cast_lite.py', '../_base_/models/cityscapes_small_size.py',
          '../_base_/datasets/cityscapes_small.py', '../_base_/schedules/toy.py']
model = dict(detector=_base_.small, pixel_contrast=None)
load_from = 'work_dirs/cast_cityscapes_small/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=300, val_interval=300)
