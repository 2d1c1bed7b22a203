# The recipe of mmdet's Mask2Former R-50 for the short training of a network that COCO has trained: AdamW, a tenth
# of the learning rate in the encoder, no weight decay of norms and of what is embedded. Batch of all processes.
_base_ = './student.py'
embedding = dict(lr_mult=1.0, decay_mult=0.0)
optim_wrapper = dict(
    optimizer=dict(lr=5e-5, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(query_embed=embedding, query_feat=embedding, level_embed=embedding),
        norm_decay_mult=0.0))
train_cfg = dict(max_iters=5000, val_interval=5000)
default_hooks = dict(checkpoint=dict(interval=500))
