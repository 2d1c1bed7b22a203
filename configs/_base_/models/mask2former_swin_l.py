# Another teacher: mmdet's Mask2Former Swin-L, pretrained on COCO panoptic. Any network of the Mask2Former
# kind can take its place; `type` says CASTMask2Former(Head), which are mmdet's classes with a door for the
# pixel loss.
_base_ = './cast_student.py'

model = dict(
    detector=dict(
        data_preprocessor=dict(pad_size_divisor=32),
        backbone=dict(
            _delete_=True,
            type='SwinTransformer',
            pretrain_img_size=384,
            embed_dims=192,
            depths=[2, 2, 18, 2],
            num_heads=[6, 12, 24, 48],
            window_size=12,
            mlp_ratio=4,
            qkv_bias=True,
            drop_path_rate=0.3,
            patch_norm=True,
            out_indices=(0, 1, 2, 3)),
        panoptic_head=dict(
            in_channels=[192, 384, 768, 1536],
            strides=[4, 8, 16, 32],
            num_queries=200,
            enforce_decoder_input_project=False,
            pixel_decoder=dict(
                _delete_=True,
                type='MSDeformAttnPixelDecoder',
                num_outs=3,
                norm_cfg=dict(type='GN', num_groups=32),
                act_cfg=dict(type='ReLU'),
                encoder=dict(
                    num_layers=6,
                    layer_cfg=dict(
                        self_attn_cfg=dict(
                            embed_dims=256, num_heads=8, num_levels=3, num_points=4, dropout=0.0, batch_first=True),
                        ffn_cfg=dict(
                            embed_dims=256,
                            feedforward_channels=1024,
                            num_fcs=2,
                            ffn_drop=0.0,
                            act_cfg=dict(type='ReLU', inplace=True)))),
                positional_encoding=dict(num_feats=128, normalize=True)),
            transformer_decoder=dict(layer_cfg=dict(ffn_cfg=dict(feedforward_channels=2048))))),
    pixel_contrast=dict(type='PixelContrast', in_channels=1536, pool=1, loss_weight=0.1))  # Swin's stride 32
