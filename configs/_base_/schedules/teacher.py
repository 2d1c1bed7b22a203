# Adaptation of the foundation teacher, both components together: Grounding-DINO's iterations and steps, each
# component with its own learning rates and weight decay; bf16. Batch 8 over all processes.
_base_ = './student.py'
grounding_dino_parts = {'grounding_dino.': dict(), 'grounding_dino.backbone.': dict(lr_mult=0.1)}
# SAM2's learning rates are 5e-6 and, in the image encoder, 3e-6 with layer decay.
sam2_parts = {
    'sam2.': dict(lr_mult=0.1, weight_decay=0.1, decay_norm_and_bias=False),
    'sam2.model.vision_encoder.': dict(
        lr_mult=0.06, weight_decay=0.1, decay_norm_and_bias=False, layer_decay=0.9),
}
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.01),
    constructor='PartsOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, parts={**grounding_dino_parts, **sam2_parts}),
    clip_grad=dict(max_norm=0.1))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[700, 900], gamma=0.1)]
train_cfg = dict(max_iters=1000, val_interval=1000)
# A checkpoint has 6.7 GB with the optimizer's state, with model.lora 0.04.
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=1))
