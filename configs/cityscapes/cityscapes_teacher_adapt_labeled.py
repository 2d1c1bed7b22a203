# Step 1a: adapt the foundation teacher on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/grounded_sam.py', '../_base_/datasets/cityscapes_teacher.py',
          '../_base_/schedules/teacher.py']
model = dict(detector=dict(classes=_base_.classes))
load_from = 'work_dirs/cast_cityscapes/start/teacher.pth'  # the pipeline puts its own here
