# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = ['../_base_/models/cast_lite.py', '../_base_/models/cityscapes_small_size.py',
          '../_base_/datasets/cityscapes_small.py', '../_base_/schedules/toy.py']
model = dict(
    detector=_base_.small, pixel_contrast=_base_.pixel_contrast, semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_cityscapes_small/start/student.pth'  # the pipeline puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # the start weights have no classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1500, val_interval=1500)
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
