"""Weights to start from where another data set has other classes and more instances in an image."""

import os
from pathlib import Path

import torch
from torch import Tensor

from mmcast.models.weights.reading import read_state_dict, write_state_dict

QUERIES = ('panoptic_head.query_embed.weight', 'panoptic_head.query_feat.weight')
CLASS_HEAD = 'panoptic_head.cls_embed.'
NOISE = (
    0.3  # of the queries' standard deviation: copies part, and still find what the original found
)


def fit_start_weights(
    out_dir: str | os.PathLike, num_queries: int, seed: int = 0, **weights: str
) -> dict[str, str]:
    """A pipeline's step that fits weights of a plain Mask2Former-style detector to more queries and
    other classes.

    Learned queries are repeated, with noise on the copies; the class head is left out, so a config
    that starts from such a file lists ``panoptic_head.cls_embed.`` under ``new_parameters``. All
    else stays as it is.

    Args:
        out_dir: folder of the new files.
        num_queries: of the new network, at least as many as an image has instances.
        seed: of the noise.
        weights: weights files by name.

    Returns:
        The new files by the same names.

    Raises:
        CASTError: a file is missing or holds no weights.
    """
    written = {}
    for name, path in weights.items():
        state = read_state_dict(path)
        generator = torch.Generator().manual_seed(seed)
        fitted = {
            key: repeat_queries(value, num_queries, generator) if key in QUERIES else value
            for key, value in state.items()
            if not key.startswith(CLASS_HEAD)
        }
        written[name] = str(Path(out_dir, f'{name}_{num_queries}queries.pth'))
        write_state_dict(written[name], fitted)
    return written


def repeat_queries(queries: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """``queries`` (Q, C) over and over up to (number, C); from the second round on with noise."""
    rounds = -(-number // len(queries))
    repeated = queries.repeat(rounds, 1)[:number]
    noise = NOISE * queries.float().std() * torch.randn(repeated.shape, generator=generator)
    noise[: len(queries)] = 0
    return (repeated.float() + noise).to(queries.dtype)
