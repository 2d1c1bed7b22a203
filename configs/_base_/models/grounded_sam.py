# The foundation teacher: MM-Grounding-DINO Swin-L (boxes by class names) and SAM2.1 Hiera-L (masks),
# 560 M parameters. Where the weights come from: docs/teacher.md.
_base_ = './swin_l.py'
num_levels = 5
normalisation = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
ffn = dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0)
attention = dict(embed_dims=256, num_heads=8, dropout=0.0)
neck = dict(
    type='ChannelMapper', in_channels=_base_.swin_l_channels, kernel_size=1, out_channels=256,
    act_cfg=None, bias=True, norm_cfg=dict(type='GN', num_groups=32), num_outs=num_levels)
encoder = dict(
    num_layers=6,
    num_cp=0,  # mmdet's own checkpointing needs fairscale; activation_checkpointing below does not
    layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=256, num_levels=num_levels, dropout=0.0), ffn_cfg=ffn),
    text_layer_cfg=dict(
        self_attn_cfg=dict(num_heads=4, embed_dims=256, dropout=0.0),
        ffn_cfg=dict(embed_dims=256, feedforward_channels=1024, ffn_drop=0.0)),
    fusion_layer_cfg=dict(v_dim=256, l_dim=256, embed_dim=1024, num_heads=4, init_values=1e-4))
decoder = dict(
    num_layers=6, return_intermediate=True, post_norm_cfg=None,
    layer_cfg=dict(
        self_attn_cfg=attention, cross_attn_text_cfg=attention,
        cross_attn_cfg=dict(attention, num_levels=num_levels), ffn_cfg=ffn))
bbox_head = dict(
    type='GroundingDINOHead', num_classes=256, sync_cls_avg_factor=True,
    contrastive_cfg=dict(max_text_len=256, log_scale='auto', bias=True),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    loss_bbox=dict(type='L1Loss', loss_weight=5.0))
denoising = dict(
    label_noise_scale=0.5, box_noise_scale=1.0,
    group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100))
match_costs = [
    dict(type='BinaryFocalLossCost', weight=2.0),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='IoUCost', iou_mode='giou', weight=2.0)]
grounding_dino = dict(
    type='PromptedGroundingDINO', num_queries=900, num_feature_levels=num_levels, with_box_refine=True,
    as_two_stage=True, box_scale=(1333, 800),
    train_box_scales=[(1333, short_side) for short_side in range(480, 801, 32)],
    data_preprocessor=dict(type='DetDataPreprocessor', **normalisation),
    language_model=dict(type='BertTextEncoder', name='weights/bert-base-uncased', max_tokens=256),
    backbone=_base_.swin_l, neck=neck, encoder=encoder, decoder=decoder, bbox_head=bbox_head,
    positional_encoding=dict(num_feats=128, normalize=True, offset=0.0, temperature=20),
    dn_cfg=denoising,
    train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=match_costs)),
    test_cfg=dict(score_thr=0.05, max_per_img=100))
model = dict(
    type='CASTDetector',
    detector=dict(
        type='GroundedSAM',
        classes=None,  # the step configs put the data set's here
        prompts=None,  # other words than the names: dict(motorcycle=['motorbike', 'scooter'])
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_mask=True, mask_pad_value=0, **normalisation),
        activation_checkpointing=True,
        grounding_dino=grounding_dino,
        sam2=dict(type='BoxPromptedSAM2', size='large')),
    # SAM2's image embedding, stride 16 of its square, to the stride of 32 that is nearest to the paper's.
    pixel_contrast=dict(type='PixelContrast', in_channels=256, pool=2, loss_weight=0.1))
