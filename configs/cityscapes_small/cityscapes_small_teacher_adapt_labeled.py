# Step 1a: the teacher on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/lite_teacher.py', '../_base_/models/cityscapes_small_size.py',
          '../_base_/datasets/cityscapes_small.py', '../_base_/schedules/toy.py']
model = dict(detector=_base_.small, pixel_contrast=_base_.pixel_contrast)
load_from = 'work_dirs/cast_cityscapes_small/start/teacher.pth'  # the pipeline puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # the start weights have no classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1000, val_interval=1000)
