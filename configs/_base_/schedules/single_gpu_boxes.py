# On one GPU, first component: Grounding-DINO. Batches of 2, the gradients of four together, so four times
# the iterations of the recipe.
_base_ = './teacher.py'
optim_wrapper = dict(
    accumulative_counts=4,
    paramwise_cfg=dict(parts=dict(_base_.grounding_dino_parts, _delete_=True)))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[2800, 3600], gamma=0.1)]
train_cfg = dict(max_iters=4000, val_interval=4000)
