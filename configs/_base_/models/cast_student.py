# The compact student: DINOv2-S/14, DPT, Mask2Former decoder; 51.95 M parameters.
num_classes = 8
attention = dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True)
relu = dict(type='ReLU', inplace=True)
loss_dice = dict(
    type='DiceLoss', use_sigmoid=True, activate=True, reduction='mean', naive_dice=True, eps=1.0,
    loss_weight=5.0)
head = dict(
    type='CASTMask2FormerHead', in_channels=[384, 384, 384, 384], feat_channels=256, out_channels=256,
    num_things_classes=num_classes, num_stuff_classes=0, num_queries=100, num_transformer_feat_level=3,
    pixel_decoder=dict(
        type='DPTPixelDecoder', reassemble_channels=(96, 192, 384, 928), scales=(4, 2, 1, 0.5),
        num_groups=32,
        # At a stride of 3.5 every channel is expensive: 256 would nearly triple the operations.
        fine_channels=96),
    positional_encoding=dict(num_feats=128, normalize=True),
    transformer_decoder=dict(
        return_intermediate=True, num_layers=9, init_cfg=None,
        layer_cfg=dict(
            self_attn_cfg=attention, cross_attn_cfg=attention,
            ffn_cfg=dict(
                embed_dims=256, feedforward_channels=1024, num_fcs=2, ffn_drop=0.0, act_cfg=relu))),
    loss_cls=dict(
        type='CrossEntropyLoss', use_sigmoid=False, loss_weight=2.0, reduction='mean',
        class_weight=[1.0] * num_classes + [0.1]),
    loss_mask=dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='mean', loss_weight=5.0),
    loss_dice=loss_dice)
match_costs = [
    dict(type='ClassificationCost', weight=2.0),
    dict(type='CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
    dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0)]
model = dict(
    type='CASTDetector',
    detector=dict(
        type='CASTMask2Former',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True, pad_size_divisor=14, pad_mask=True, mask_pad_value=0),
        backbone=dict(
            type='DINOv2', arch='dinov2-small', patch_size=14, img_size=518, out_indices=(2, 5, 8, 11)),
        panoptic_head=head,
        panoptic_fusion_head=dict(
            type='MaskFormerFusionHead', num_things_classes=num_classes, num_stuff_classes=0,
            loss_panoptic=None),
        train_cfg=dict(
            num_points=12544, oversample_ratio=3.0, importance_sample_ratio=0.75,
            assigner=dict(type='HungarianAssigner', match_costs=match_costs),
            sampler=dict(type='MaskPseudoSampler')),
        test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=100)))

# What the pixel loss adds in the steps that have one: on the coarsest map, stride 28 as in the paper.
pixel_contrast = dict(type='PixelContrast', in_channels=384, pool=2, loss_weight=0.1)
