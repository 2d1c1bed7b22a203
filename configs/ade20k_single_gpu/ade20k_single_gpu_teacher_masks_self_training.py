# Step 1b on one GPU, second half: SAM2 on labels and pseudo-labels, with its own schedule, a cosine to a
# tenth; the Grounding-DINO of the first half frozen. Batches of 2, the gradients of two together and, for
# half the recipe's batch, half its learning rates.
_base_ = '../ade20k/ade20k_teacher_adapt_self_training.py'

model = dict(detector=dict(frozen=('grounding_dino', )))
load_from = 'work_dirs/cast_ade20k_single_gpu/boxes_self_training.pth'  # the pipeline puts its own here
new_parameters = ['pixel_contrast.']  # the first half's was for Swin's features
train_dataloader = dict(batch_size=2, num_workers=4, sampler=dict(batch_size=2))
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=2.5e-6, weight_decay=0.1),
    paramwise_cfg=dict(
        _delete_=True, parts={
            'sam2.': dict(decay_norm_and_bias=False),
            'sam2.model.vision_encoder.': dict(lr_mult=0.6, decay_norm_and_bias=False, layer_decay=0.9)
        }))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.1)]
train_cfg = dict(max_iters=6000, val_interval=6000)
