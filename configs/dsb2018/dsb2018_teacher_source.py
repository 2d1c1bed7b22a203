# How the foundation teacher of DSB2018 was made: on synthetic nuclei of any stain and light, from the toy's
# teacher. `python tools/make_toy_weights.py` generates the images, runs this and packs the weights.
_base_ = ['../_base_/models/dsb2018_teacher.py', '../_base_/datasets/toy_nuclei.py',
          '../_base_/schedules/toy.py']
model = dict(pixel_contrast=None)
load_from = 'work_dirs/toy_weights/start/nuclei_teacher_48queries.pth'  # make_toy_weights.py puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # a nucleus is none of the start weights' classes
train_cfg = dict(max_iters=3600, val_interval=1200)
