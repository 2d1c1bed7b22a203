# Step 1a on one GPU, first half: Grounding-DINO on the labels, SAM2 frozen. Batches of 2, the gradients of
# four together, so four times the iterations of the recipe.
_base_ = '../ade20k/ade20k_teacher_adapt_labeled.py'

model = dict(
    detector=dict(frozen=('sam2', )),
    pixel_contrast=dict(in_channels=1536, pool=1))  # Swin's coarsest map, stride 32
train_dataloader = dict(batch_size=2, num_workers=4)
optim_wrapper = dict(
    accumulative_counts=4,
    paramwise_cfg=dict(
        _delete_=True, parts={
            'grounding_dino.': dict(),
            'grounding_dino.backbone.': dict(lr_mult=0.1)
        }))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[2800, 3600], gamma=0.1)]
train_cfg = dict(max_iters=4000, val_interval=4000)
