# How the toy student's pretrained weights were made, the stand-in for the public weights of DINOv2:
# supervised on the source domain, decoder included, which no minutes of a CPU could train from scratch.
_base_ = ['../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes_source.py',
          '../_base_/schedules/toy.py']
model = dict(pixel_contrast=None)
train_cfg = dict(max_iters=2500, val_interval=500)
