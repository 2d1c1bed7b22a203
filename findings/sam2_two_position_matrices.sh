#!/usr/bin/env bash
# transformers 5.24.0: a Sam2Model that is built from a configuration encodes positions in the image with one random
# matrix and the points and corners of boxes with another. In SAM2, as in SAM, it is one matrix: a box says where
# something is because its corners have the codes of the image's positions. The names still say so
# (shared_image_embedding, prompt_encoder.shared_embedding), SamModel still has one, Sam2Model of transformers 4.57 had
# one, and published files have one or two equal ones, which from_pretrained puts into both. Who trains from random
# weights, or loads Meta's weights by load_state_dict, whose one matrix then reaches one of the two alone, gets no
# error; the losses fall, too. Below, the code of one point by both modules of either model.
# Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 transformers==5.24.0
cat > "$folder/positions.py" <<'PYTHON'
import sys

import torch
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, SamConfig, SamModel

torch.manual_seed(0)
vit = dict(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, mlp_dim=32, output_channels=32,
    image_size=64, patch_size=16, global_attn_indexes=[0])
decoder = dict(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
hiera = Sam2HieraDetConfig(
    hidden_size=16, blocks_per_stage=[1, 1, 1, 1], global_attention_blocks=[], image_size=[64, 64],
    embed_dim_per_stage=[16, 32, 64, 128], window_size_per_stage=[4, 4, 4, 4],
    window_positional_embedding_background_size=[4, 4])
vision = dict(
    backbone_config=hiera, backbone_channel_list=[128, 64, 32, 16],
    backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]])
models = [
    SamModel(SamConfig(
        vision_config=vit, mask_decoder_config=decoder,
        prompt_encoder_config=dict(hidden_size=32, image_size=64))),
    Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=dict(image_size=64))),
]
point = torch.tensor([[[[0.25, 0.75]]]])  # in 0..1 of the image
same = []
for model in models:
    image, prompt = (
        module(point).flatten() for module in (model.shared_image_embedding, model.prompt_encoder.shared_embedding))
    same.append(torch.equal(image, prompt))
    print(f'{type(model).__name__}: the image has {image[:3].tolist()}, a prompt has {prompt[:3].tolist()}')
if same != [True, False]:
    sys.exit('changed: SamModel and Sam2Model have the same code or not as before')
PYTHON
"$folder/venv/bin/python" "$folder/positions.py" 2>/dev/null
