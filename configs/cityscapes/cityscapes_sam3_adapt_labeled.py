# Step 1a with SAM3: adapt it on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/sam3.py', '../_base_/datasets/cityscapes_teacher.py',
          '../_base_/schedules/sam3_adaptation.py']
model = dict(detector=dict(classes=_base_.classes))
load_from = 'work_dirs/cast_cityscapes_sam3/start/teacher.pth'  # the pipeline puts its own here
