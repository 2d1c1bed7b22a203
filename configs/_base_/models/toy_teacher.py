# The toy's foundation teacher: a convolutional encoder, wider and deeper than the toy student, 2.2 M
# parameters. Any encoder with four maps serves; GroupNorm, because the teacher is fine-tuned on batches of
# a few images.
_base_ = './toy_student.py'
resnet = dict(
    _delete_=True, type='ResNet', depth=18, base_channels=20, stem_channels=20, num_stages=4,
    out_indices=(0, 1, 2, 3), frozen_stages=-1, norm_cfg=dict(type='GN', num_groups=5), norm_eval=False,
    style='pytorch')
wider = dict(embed_dims=64, num_heads=4)
ffn = dict(embed_dims=64, feedforward_channels=256)
model = dict(
    detector=dict(
        data_preprocessor=dict(pad_size_divisor=32),
        backbone=resnet,
        panoptic_head=dict(
            in_channels=[20, 40, 80, 160], feat_channels=64, out_channels=64,
            pixel_decoder=dict(
                reassemble_channels=(32, 48, 64, 96), scales=(1, 1, 1, 1), num_groups=8),
            positional_encoding=dict(num_feats=32),
            transformer_decoder=dict(
                layer_cfg=dict(self_attn_cfg=wider, cross_attn_cfg=wider, ffn_cfg=ffn)))),
    # The stride-16 map; the coarsest, stride 32, has 4 x 7 pixels only.
    pixel_contrast=dict(in_channels=80, feature_index=2, pool=1))
