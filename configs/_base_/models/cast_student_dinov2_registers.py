# The compact student with the variant of DINOv2's ViT-S/14 that has four register tokens (arXiv 2309.16588).
_base_ = './cast_student.py'
model = dict(
    detector=dict(
        backbone=dict(_delete_=True, type='TimmEncoder', name='vit_small_patch14_reg4_dinov2')))
