# How configs/custom/weights/lite2_decoder.pth was made: the decoder of custom data's teacher, on an encoder that keeps
# its ImageNet weights. `python tools/make_toy_weights.py` draws the images, runs this and packs the decoder.
_base_ = ['../_base_/models/custom_teacher.py', '../_base_/datasets/toy_objects.py', '../_base_/schedules/toy.py']
model = dict(detector=dict(backbone=dict(frozen_stages=7)), pixel_contrast=None)
load_from = 'work_dirs/toy_weights/start/lite2_decoder_100queries.pth'  # make_toy_weights.py puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # an object is none of the start weights' classes
train_cfg = dict(max_iters=3000, val_interval=1500)
