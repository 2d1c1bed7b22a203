# The compact student with DINOv3's ViT-S/16 in place of DINOv2's ViT-S/14. The weights are under Meta's DINOv3
# License, which has to be accepted where they are downloaded; docs/encoders.md.
_base_ = './cast_student.py'
model = dict(
    detector=dict(
        data_preprocessor=dict(pad_size_divisor=16),
        # qkvb: with the biases of query and value, which Meta's and Hugging Face's files have.
        backbone=dict(_delete_=True, type='TimmEncoder', name='vit_small_patch16_dinov3_qkvb')))
