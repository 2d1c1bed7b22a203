# The student in miniature for 112x224 images: the same classes and the same data flow, 1 M parameters.
_base_ = './cast_student.py'
arch = dict(_delete_=True, embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)
small_attention = dict(embed_dims=48, num_heads=4)
layer = dict(
    self_attn_cfg=small_attention, cross_attn_cfg=small_attention,
    ffn_cfg=dict(embed_dims=48, feedforward_channels=192))
model = dict(
    detector=dict(
        data_preprocessor=dict(pad_size_divisor=8),
        backbone=dict(arch=arch, patch_size=8, img_size=224, out_indices=(0, 1, 2, 3)),
        panoptic_head=dict(
            in_channels=[96, 96, 96, 96], feat_channels=48, out_channels=48, num_queries=24,
            # Finest stride 4: at stride 2 the decoder would cost more than all the rest.
            pixel_decoder=dict(
                reassemble_channels=(24, 32, 48, 64), scales=(2, 1, 1, 0.5), num_groups=8,
                fine_channels=None),
            positional_encoding=dict(num_feats=24),
            transformer_decoder=dict(num_layers=3, layer_cfg=layer)),
        train_cfg=dict(num_points=1024),
        test_cfg=dict(max_per_image=24)),
    pixel_contrast=dict(
        type='PixelContrast', in_channels=96, embed_dims=64, pool=2, loss_weight=0.1))
