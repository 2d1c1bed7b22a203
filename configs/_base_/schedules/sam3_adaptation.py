# Adaptation of SAM3: learning rates, layer decay, weight decay and clipping of Meta's fine-tuning on 100 images
# (facebookresearch/sam3, sam3/train/configs/roboflow_v100/roboflow_v100_full_ft_100_images.yaml at 11a6467), with a
# cosine to a tenth in place of its schedule, which counts epochs.
_base_ = './student.py'
optim_wrapper = dict(
    optimizer=dict(lr=8e-5, weight_decay=0.1),
    constructor='PartsOptimWrapperConstructor',
    paramwise_cfg=dict(
        _delete_=True,
        parts={
            'network.': dict(decay_norm_and_bias=False),
            'network.vision_encoder.': dict(lr_mult=0.3125, decay_norm_and_bias=False, layer_decay=0.9),
        }),
    clip_grad=dict(max_norm=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min_ratio=0.1)]
train_cfg = dict(max_iters=1000, val_interval=1000)
# A checkpoint has 10 GB with the optimizer's state, with model.lora 0.04.
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=1))
