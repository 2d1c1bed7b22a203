# Step 1a: adapt the foundation teacher on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/grounded_sam.py', '../_base_/datasets/ade20k_teacher.py',
          '../_base_/schedules/teacher.py']
# 100 names in one text are harder to tell apart: as mmdet does for LVIS, 40 at a time.
prompts = dict(grounding_dino=dict(test_cfg=dict(classes_per_prompt=40)), classes=_base_.classes)
model = dict(detector=prompts)
load_from = 'work_dirs/cast_ade20k/start/teacher.pth'  # the pipeline puts its own here
