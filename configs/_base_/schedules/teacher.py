# Adaptation of the foundation teacher, both halves together: Grounding-DINO's iterations and steps, each half
# with its own learning rates and weight decay; bf16. Batch 8 over all processes.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bf16 has the range of float32
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.01, betas=(0.9, 0.999)),
    constructor='PartsOptimWrapperConstructor',
    paramwise_cfg=dict(
        parts={
            'grounding_dino.': dict(),
            'grounding_dino.backbone.': dict(lr_mult=0.1),
            'sam2.': dict(lr_mult=0.1, weight_decay=0.1, decay_norm_and_bias=False),  # 5e-6
            'sam2.model.vision_encoder.': dict(  # 3e-6
                lr_mult=0.06, weight_decay=0.1, decay_norm_and_bias=False, layer_decay=0.9),
        }),
    clip_grad=dict(max_norm=0.1, norm_type=2))

param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[700, 900], gamma=0.1)]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

divide_batch_size = True  # batch sizes are those of all processes together
