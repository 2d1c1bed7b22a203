#!/usr/bin/env bash
# transformers 5.24.0 reads a text prompt of SAM3 without the token that Meta's own network (PyPI's sam3 0.1.4) puts after every
# text: the encoder of geometric prompts makes it of the image, also where there is no box. So `Sam3Model` and Meta's
# `build_sam3_image_model` answer a plain text differently on the same weights, which were trained with the token. Shown by
# changing the token's embedding: Meta's answer to the text 'traffic light' changes, transformers' stays as it was to the last
# bit. (Meta's code names a CUDA device in three places; they are changed first, so that this runs on a CPU. The package has no
# vocabulary; it is CLIP's, here open_clip's file.)
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 \
    timm==1.0.31 iopath==0.1.10 ftfy==6.3.1 einops==0.8.1 'setuptools<81' pycocotools==2.0.11 decord==0.6.0 torchmetrics==1.8.2 psutil
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps sam3==0.1.4 open_clip_torch==3.2.0
cd "$folder"
vocabulary=$(echo "$folder"/venv/lib/python3*/site-packages/open_clip/bpe_simple_vocab_16e6.txt.gz)
export vocabulary
model=$(echo venv/lib/python3*/site-packages/sam3/model)
sed -i 's/device="cuda"/device="cpu"/' "$model/position_encoding.py" "$model/decoder.py"
sed -i 's/scale.pin_memory()/scale/' "$model/geometry_encoders.py"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import sys
from unittest import mock

import numpy as np
import torch
from PIL import Image
from sam3 import model_builder
from sam3.model.sam3_image_processor import Sam3Processor
from transformers import Sam3Config, Sam3Model

vit, text = model_builder.ViT, model_builder.VETextEncoder
with (
    mock.patch.object(model_builder, 'ViT', lambda **k: vit(**dict(k, depth=2, global_att_blocks=(1,)))),
    mock.patch.object(model_builder, 'VETextEncoder', lambda **k: text(**dict(k, layers=2))),
):
    meta = model_builder.build_sam3_image_model(
        bpe_path=os.environ['vocabulary'], device='cpu', load_from_HF=False
    )
config = Sam3Config().to_dict()
config['vision_config']['backbone_config'].update(num_hidden_layers=2, global_attn_indexes=[1])
config['text_config']['num_hidden_layers'] = 2
library = Sam3Model(Sam3Config(**config)).eval()
torch.manual_seed(0)
for name, weight in [*meta.named_parameters(), *library.named_parameters()]:
    scale = 0.3 if 'embed' in name else 0.02
    weight.data.normal_(float(weight.dim() == 1 and name.endswith('weight')), scale)
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))
pixels = torch.rand(1, 3, 1008, 1008) * 2 - 1
tokens = torch.tensor([[49406, 3399, 1395, 49407]])  # 'traffic light' between start and end


@torch.no_grad()
def answers():
    processor = Sam3Processor(meta, device='cpu', confidence_threshold=-1)
    state = processor.set_text_prompt('traffic light', processor.set_image(image))
    found = library(pixel_values=pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return state['scores'], found.pred_logits


before = answers()
for network in (meta, library):
    network.geometry_encoder.cls_embed.weight.data.add_(torch.randn(1, 256))
meta_change, library_change = (
    (new - old).abs().max().item() for old, new in zip(before, answers())
)
print(f"the token's embedding changed: Meta's scores by {meta_change:.1e}, transformers' logits by {library_change:.1e}")
if meta_change < 1e-6 or library_change:
    sys.exit("changed: both read the token, or neither does")
PYTHON
