"""What ``CASTDetector`` asks of a network, student or teacher, and what that returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mmdet.structures import SampleList
from torch import Tensor


@dataclass
class NetworkOutputs:
    """What one forward pass of a network returns.

    Attributes:
        features: Encoder feature maps, finest first, each (B, C_i, h_i, w_i).
        class_logits: One (B, K, C + 1) tensor per decoder layer, the last layer last.
        mask_logits: One (B, K, H, W) tensor per decoder layer, the last layer last. Both may be
            sequences that make their tensors on demand, such as :class:`OnDemand`.
        decoded: Maps of the pixel decoder, coarsest first; of a :class:`PixelDecodingNetwork` only.
    """

    features: tuple[Tensor, ...]
    class_logits: Sequence[Tensor]
    mask_logits: Sequence[Tensor]
    decoded: tuple[Tensor, ...] = ()


class OnDemand(Sequence):
    """A sequence of one tensor that is made when it is first asked for.

    Args:
        make: Returns the tensor; called at every access, so it should remember.
    """

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        return [self._make][index]()


@runtime_checkable
class CASTNetwork(Protocol):
    """What a network has to offer to learn in a ``CASTDetector``: mmdet's detector and these
    methods.
    """

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Encoder feature maps, as in ``NetworkOutputs.features``.

        Args:
            batch_inputs: (B, 3, H, W), normalised images.
        """

    def forward_once(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> NetworkOutputs:
        """One forward pass, which serves every term of the objective.

        Args:
            batch_inputs: (B, 3, H, W), normalised images.
            batch_data_samples: Their B samples.
        """

    def loss_on(
        self, outputs: NetworkOutputs, batch_data_samples: SampleList, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The network's losses on some images of a forward pass; of none, zeros with a graph.

        The same keys come for every choice of images, or distributed training deadlocks.

        Args:
            outputs: Of :meth:`forward_once`.
            batch_data_samples: The B samples.
            indices: The images among them.
        """

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """The samples with ``pred_instances``.

        Args:
            batch_inputs: (B, 3, H, W), normalised images.
            batch_data_samples: Their B samples.
            rescale: Masks and boxes at ``ori_shape``, else at ``img_shape``.
        """


@runtime_checkable
class PixelDecodingNetwork(CASTNetwork, Protocol):
    """A network whose pixel decoder's maps can be contrasted:
    ``pixel_contrast.source='pixel_decoder'``.
    """

    def decode_pixels(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The pixel decoder's maps of encoder features, as in ``NetworkOutputs.decoded``."""
