# SAM2 learns, Grounding-DINO is frozen.
_base_ = './grounded_sam.py'
model = dict(detector=dict(frozen=('grounding_dino', )))
