"""Maps of training images that a frozen image encoder made before."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcast.errors import CASTError


class EmbeddingCache:
    """Keeps what a frozen encoder makes of an image, by the image's pixels and the encoder's
    weights.

    The maps are in main memory, as they were computed. When it is full, it keeps what it has: in an
    epoch every image is as likely to be asked for as any other. Other weights empty it; a copy of a
    model begins with an empty one.

    Args:
        max_gb: Most memory in GB (2^30 bytes), in each process.

    Attributes:
        hits: So many images were not encoded.
        misses: So many were.
    """

    def __init__(self, max_gb: float) -> None:
        if max_gb <= 0:
            raise CASTError(f'cache_gb={max_gb} must be above 0')
        self.max_gb = max_gb
        self.hits = self.misses = 0
        self._bytes = 0
        self._maps: dict[str, list[Tensor]] = {}
        self._weights: tuple | None = None

    def __getstate__(self) -> dict[str, Any]:
        return dict(EmbeddingCache(self.max_gb).__dict__)

    def get(
        self,
        pixels: Tensor,
        encode: Callable[[Tensor], Sequence[Tensor]],
        frozen: Sequence[nn.Module | nn.Parameter],
    ) -> list[Tensor]:
        """The maps of a batch, of which only the images that are new are encoded.

        Args:
            pixels: (B, 3, H, W) of uint8.
            encode: Maps (b, ...) of images (b, 3, H, W), each of which depends on its image alone.
            frozen: Everything whose weights ``encode`` reads.

        Returns:
            Maps (B, ...) on the device of ``pixels``, without gradient.
        """
        self._forget_other_weights(frozen)
        keys = [_key(image, pixels.device.type) for image in pixels]
        missing = list(dict.fromkeys(key for key in keys if key not in self._maps))
        new: dict[str, list[Tensor]] = {}
        if missing:
            with torch.no_grad():
                found = encode(pixels[[keys.index(key) for key in missing]])
            new = {key: [part[i] for part in found] for i, key in enumerate(missing)}
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        of_images = [new.get(key) or self._maps[key] for key in keys]
        for key, maps in new.items():
            self._keep(key, maps)
        return [
            torch.stack([part.to(pixels.device, non_blocking=True) for part in parts])
            for parts in zip(*of_images)
        ]

    def _keep(self, key: str, maps: Sequence[Tensor]) -> None:
        size = sum(part.numel() * part.element_size() for part in maps)
        if self._bytes + size <= self.max_gb * 2**30:
            # A clone, as a part of a batch would hold on to all of it.
            self._maps[key] = [part.detach().to('cpu', copy=True) for part in maps]
            self._bytes += size

    def _forget_other_weights(self, frozen: Sequence[nn.Module | nn.Parameter]) -> None:
        """A change in place, as of loading a checkpoint, counts a tensor's version up."""
        weights = tuple((id(each), each.data_ptr(), each._version) for each in _tensors(frozen))
        if weights != self._weights:
            self._maps.clear()
            self._bytes, self._weights = 0, weights


def _tensors(frozen: Sequence[nn.Module | nn.Parameter]) -> Iterator[Tensor]:
    for each in frozen:
        if isinstance(each, nn.Module):
            yield from each.parameters()
            yield from each.buffers()
        else:
            yield each


def _key(image: Tensor, device: str) -> str:
    """Of an image's content and size, and of the precision that it is encoded in."""
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else ''
    digest = hashlib.sha256(f'{tuple(image.shape)} {precision}'.encode())
    digest.update(image.cpu().contiguous().numpy())
    return digest.hexdigest()
