# On one GPU, second component: SAM2 with its own schedule, a cosine to a tenth. Batches of 2, the gradients
# of two together and, for half the recipe's batch, half its learning rates.
_base_ = './teacher.py'
sam2 = {
    'sam2.': dict(decay_norm_and_bias=False),
    'sam2.model.vision_encoder.': dict(lr_mult=0.6, decay_norm_and_bias=False, layer_decay=0.9),
}
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=2.5e-6, weight_decay=0.1),
    paramwise_cfg=dict(parts=dict(sam2, _delete_=True)))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.1)]
train_cfg = dict(max_iters=6000, val_interval=6000)
