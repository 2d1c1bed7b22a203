# Grounding-DINO learns, SAM2 is frozen; the pixel loss is on Swin's coarsest map, stride 32.
_base_ = './grounded_sam.py'
model = dict(detector=dict(frozen=('sam2', )), pixel_contrast=dict(in_channels=1536, pool=1))
