# Step 3 on own images: refine the transferred student on the labels alone, at a fifth of the learning rate.
_base_ = ['../_base_/models/cast_lite.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/student.py']
model = dict(detector=_base_.custom)
load_from = 'work_dirs/cast_custom_foundation/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0))
train_dataloader = dict(num_workers=4)
