# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi on.
_base_ = ['../_base_/models/custom_student.py', '../_base_/datasets/custom.py', '../_base_/schedules/toy.py']
model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_custom/start/student.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1200, val_interval=1200)
# As many labeled images in a step as the baseline has, and as many pseudo-labeled ones beside them.
train_dataloader = dict(
    _base_.semi_dataloader, _delete_=True, batch_size=8, sampler=dict(_base_.semi_dataloader.sampler, batch_size=8))
