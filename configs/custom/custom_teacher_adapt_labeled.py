# Step 1a: the teacher on the labeled images.
_base_ = ['../_base_/models/custom_teacher.py', '../_base_/datasets/custom.py', '../_base_/schedules/toy.py']
load_from = 'work_dirs/cast_custom/start/teacher.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1500, val_interval=1500)
