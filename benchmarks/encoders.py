"""Encoders of timm that were tried: size, maps, work and what sizes of images they take.

    python benchmarks/encoders.py                       # the table of docs/encoders.md
    python benchmarks/encoders.py convnext_small regnety_008

Random weights: none is downloaded. Each is built, run at two sizes that are no square, and
differentiated.
"""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

NAMES = [
    *('tf_efficientnet_lite0', 'tf_efficientnet_lite2', 'mobilenetv4_conv_small'),
    *('mobilenetv4_conv_medium', 'fastvit_t8', 'repvit_m0_9', 'edgenext_xx_small'),
    *('convnextv2_atto', 'efficientvit_b0', 'regnety_004', 'mobilevitv2_050', 'resnet18'),
    *('resnet50', 'convnext_tiny', 'swin_tiny_patch4_window7_224', 'tiny_vit_5m_224'),
    *('vit_small_patch16_dinov3_qkvb', 'vit_small_patch14_reg4_dinov2'),
    *('efficientformerv2_s0', 'hiera_tiny_224', 'maxvit_tiny_tf_224'),
]
HEIGHT, WIDTH = 512, 1024
HEADERS = (
    'encoder',
    'parameters (M)',
    'strides',
    'channels',
    'sides',
    f'GFLOPs at {HEIGHT}x{WIDTH}',
)


def row(name: str) -> tuple[str, ...]:
    """One encoder's row of the table.

    Raises:
        CASTError: there is none of the name, or it has no maps.
    """
    from mmcast.models.encoders.timm_encoder import TimmEncoder

    encoder = TimmEncoder(name).train()
    count = sum(p.numel() for p in encoder.parameters()) / 1e6
    strides = encoder.strides
    shown = (
        f'{strides[0]}, {len(strides)} maps'
        if len(set(strides)) == 1
        else '/'.join(map(str, strides))
    )
    return (
        f'`{name}`',
        f'{count:.2f}',
        shown,
        '/'.join(map(str, dict.fromkeys(encoder.channels))),
        sides(encoder),
        flops(name, encoder.size_divisor),
    )


def sides(encoder: torch.nn.Module) -> str:
    """What sides images may have: multiples of a number, or the model's own alone."""
    for factor in (1, 2):
        divisor = factor * encoder.size_divisor
        try:
            for size in ((3 * divisor, 5 * divisor), (4 * divisor, 3 * divisor)):
                maps = encoder(torch.randn(2, 3, *size))
                sum(each.square().sum() for each in maps).backward()
            without = [n for n, p in encoder.named_parameters() if p.grad is None]
            assert not without, f'{without[:3]} get no gradient'
            return f'multiples of {divisor}'
        except (CASTError, RuntimeError):
            encoder.zero_grad(set_to_none=True)
    return f'fixed, {encoder.model.pretrained_cfg["input_size"][1]} or as `img_size` says'


def flops(name: str, divisor: int) -> str:
    """Operations, two a multiply-add, at sides rounded up to multiples of a number."""
    from mmcast.models.encoders.timm_encoder import TimmEncoder

    size = [-(-side // divisor) * divisor for side in (HEIGHT, WIDTH)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            TimmEncoder(name).eval()(torch.randn(1, 3, *size))
        except (CASTError, RuntimeError):
            return ''
    return f'{counter.get_total_flops() / 1e9:.1f}'


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='of timm; default those of the docs'
    )
    names = parser.parse_args().names or NAMES
    print(f'| {" | ".join(HEADERS)} |')
    print('|---' * len(HEADERS) + '|')
    for name in names:
        print(f'| {" | ".join(row(name))} |', flush=True)


if __name__ == '__main__':
    main()
