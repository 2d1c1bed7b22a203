# Swin-L, the encoder of two teachers.
swin_l_channels = [192, 384, 768, 1536]
swin_l = dict(
    type='SwinTransformer', pretrain_img_size=384, embed_dims=192, depths=[2, 2, 18, 2],
    num_heads=[6, 12, 24, 48], window_size=12, mlp_ratio=4, qkv_bias=True, drop_path_rate=0.2,
    patch_norm=True, out_indices=(0, 1, 2, 3))
