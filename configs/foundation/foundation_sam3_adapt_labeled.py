# Step 1a on own images: SAM3 on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/sam3.py', '../_base_/datasets/own_images_teacher.py',
          '../_base_/schedules/sam3_adaptation.py']
model = dict(detector=dict(classes=['object']))  # the pipeline puts the data's here
train_dataloader = dict(batch_size=2, num_workers=4)
load_from = 'work_dirs/cast_custom_foundation/03_start/teacher.pth'  # likewise
