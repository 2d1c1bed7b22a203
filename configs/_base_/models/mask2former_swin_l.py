# Another teacher: mmdet's Mask2Former Swin-L, pretrained on COCO panoptic. Any network of the Mask2Former
# kind can take its place; `type` says CASTMask2Former(Head), mmdet's classes plus what CASTDetector needs.
_base_ = ['./cast_student.py', './swin_l.py']
deformable = dict(
    embed_dims=256, num_heads=8, num_levels=3, num_points=4, dropout=0.0, batch_first=True)
ffn = dict(
    embed_dims=256, feedforward_channels=1024, num_fcs=2, ffn_drop=0.0, act_cfg=_base_.relu)
pixel_decoder = dict(
    _delete_=True, type='MSDeformAttnPixelDecoder', num_outs=3, norm_cfg=dict(type='GN', num_groups=32),
    act_cfg=dict(type='ReLU'), positional_encoding=dict(num_feats=128, normalize=True),
    encoder=dict(num_layers=6, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)))
model = dict(
    detector=dict(
        data_preprocessor=dict(pad_size_divisor=32),
        backbone=dict(_base_.swin_l, _delete_=True, drop_path_rate=0.3),
        panoptic_head=dict(
            in_channels=_base_.swin_l_channels, strides=[4, 8, 16, 32], num_queries=200,
            enforce_decoder_input_project=False, pixel_decoder=pixel_decoder,
            transformer_decoder=dict(layer_cfg=dict(ffn_cfg=dict(feedforward_channels=2048))))),
    pixel_contrast=dict(type='PixelContrast', in_channels=1536, pool=1, loss_weight=0.1))  # stride 32
