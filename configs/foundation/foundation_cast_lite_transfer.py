# Step 2 on own images, the student for small machines: distill the frozen teacher's pseudo-labels, l_semi and
# l_pxl on. The encoder has seen ImageNet, the rest synthetic street scenes; learning rate and clipping are those
# that configs/custom trains the same network with.
_base_ = ['../_base_/models/cast_lite.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/student.py']
model = dict(
    detector=_base_.custom, pixel_contrast=_base_.pixel_contrast, semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_custom_foundation/03_start/student.pth'  # the pipeline puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0))
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, num_workers=4)
