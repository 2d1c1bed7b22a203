"""SAM3's network for images and texts; it is ``transformers.Sam3Model``."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as image_functional
from transformers import Sam3Config, Sam3Model
from transformers.models.sam3.modeling_sam3 import inverse_sigmoid

from mmcast.errors import CASTError
from mmcast.models.activation_checkpointing import checkpoint_activations
from mmcast.models.teacher.sam3_outputs import ImageMaps, PairOutputs

_MIDDLE = 127.5  # mean and standard deviation of SAM3's input, of pixels in 0..255
_VIT = 'vision_encoder.backbone.'


def sam3_config(image_size: int = 1008, options: dict | None = None) -> Sam3Config:
    """The published network's configuration with a few options changed.

    Args:
        image_size: Side of the square in pixels, a multiple of the patch size.
        options: Nested, as in ``Sam3Config.to_dict()``, such as ``dict(vision_config=dict(
            backbone_config=dict(num_hidden_layers=2)))``.

    Raises:
        CASTError: If the square does not divide into patches.
    """
    config = Sam3Config().to_dict()  # a part given alone would get CLIP's defaults, not SAM3's
    _merge(config, copy.deepcopy(options or {}))
    backbone = config['vision_config']['backbone_config']
    if image_size % backbone['patch_size']:
        raise CASTError(
            f'SAM3: image_size={image_size} must be a multiple of {backbone["patch_size"]}'
        )
    backbone['image_size'] = image_size
    side = image_size // backbone['patch_size']
    config['vision_config']['backbone_feature_sizes'] = [[side * k] * 2 for k in (4, 2, 1)]
    return Sam3Config(**config)


def _merge(config: dict, options: dict) -> None:
    """Put nested options into a nested configuration."""
    for name, value in options.items():
        if isinstance(value, dict) and isinstance(config.get(name), dict):
            _merge(config[name], value)
        else:
            config[name] = value


class PromptedSAM3(Sam3Model):
    """``Sam3Model`` in the parts that a list of classes needs: an image is encoded once, each text
    has a pass of the DETR part, and masks are computed of the queries that are kept alone.

    Parameters have transformers' names. Those that no text prompt reaches are frozen: the encoder
    of geometric prompts, CLIP's own projection, the coarsest map of the neck, the pixel decoder's
    last stage and the head of semantic segmentation.

    Args:
        config: The network's.
        geometry_token: Whether a text is followed by the token that the encoder of geometric
            prompts makes of the image where there is no such prompt. Meta's own network always has
            it (facebookresearch/sam3 at commit 99d02f2, ``Sam3Image._encode_prompt``), the library
            (transformers 5.24) leaves it out.
    """

    def __init__(self, config: Sam3Config, geometry_token: bool = False) -> None:
        super().__init__(config)
        self.geometry_token = geometry_token
        decoder = self.mask_decoder
        for part in (
            self.geometry_encoder,
            self.text_encoder.text_projection,
            self.vision_encoder.neck.fpn_layers[-1],
            decoder.pixel_decoder.conv_layers[-1],
            decoder.pixel_decoder.norms[-1],
            decoder.semantic_projection,
        ):
            part.requires_grad_(False)

    @property
    def image_size(self) -> int:
        """Side of the square in pixels."""
        return self.config.vision_config.backbone_config.image_size

    def checkpoint_activations(self) -> None:
        """Trade a second forward pass for the memory of the first."""
        checkpoint_activations(
            [
                *self.vision_encoder.backbone.layers,
                *self.text_encoder.text_model.encoder.layers,
                *self.detr_encoder.layers,
                *self.detr_decoder.layers,
                self.mask_decoder,
            ]
        )

    def preprocess(self, pixels: Tensor) -> Tensor:
        """SAM3's input (B, 3, S, S) from images (B, 3, H, W) of uint8, RGB: stretched and
        normalised.
        """
        square = image_functional.resize(pixels, [self.image_size] * 2, antialias=True)
        return (square.float() - _MIDDLE) / _MIDDLE

    def encode(self, pixels: Tensor) -> ImageMaps:
        """Maps of images (B, 3, H, W) of uint8; without gradient where the encoder is frozen."""
        learns = any(parameter.requires_grad for parameter in self.vision_encoder.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            found = self.vision_encoder(self.preprocess(pixels))
        # The fourth map serves the video model.
        maps, positions = (
            part[:-1] for part in (found.fpn_hidden_states, found.fpn_position_encoding)
        )
        tokens = maps[-1].new_zeros((len(pixels), 0, maps[-1].shape[1]))
        if self.geometry_token:
            tokens = self._image_tokens(maps[-1], positions[-1])
        return ImageMaps(list(maps), positions[-1], tokens)

    def _image_tokens(self, features: Tensor, position: Tensor) -> Tensor:
        """(B, 1, C): what the encoder of geometric prompts makes of images without any; in full
        precision, as it pools from half precision.
        """
        number = len(features)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return self.geometry_encoder(
                box_embeddings=features.new_zeros((number, 0, 4)),
                box_mask=features.new_zeros((number, 0), dtype=torch.bool),
                box_labels=features.new_zeros((number, 0), dtype=torch.long),
                img_feats=(features,),
                img_pos_embeds=(position.float(),),
            ).last_hidden_state

    def coarsest_map(self, pixels: Tensor) -> Tensor:
        """The last of :meth:`encode`'s maps alone, (B, C, S / 14, S / 14)."""
        square = self.preprocess(pixels)
        tokens = self.vision_encoder.backbone(square).last_hidden_state  # (B, hw, C)
        side = self.image_size // self.config.vision_config.backbone_config.patch_size
        spatial = tokens.transpose(1, 2).unflatten(2, (side, side))
        return self.vision_encoder.neck.fpn_layers[-2](spatial)

    def find(self, images: ImageMaps, states: Tensor, text_mask: Tensor) -> PairOutputs:
        """Ask P images, which may be one image several times, for one text each.

        Args:
            images: Maps of P images.
            states: (P, T, C'), the text encoder's last hidden states.
            text_mask: (P, T) of bool.
        """
        text = torch.cat([self.text_projection(states), images.tokens], dim=1)
        text_mask = F.pad(text_mask, (0, images.tokens.shape[1]), value=True)
        encoded = self.detr_encoder(
            vision_features=images.maps[-1:],
            text_features=text,
            vision_pos_embeds=[images.position],
            text_mask=text_mask,
        )
        decoded = self.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=encoded.text_features,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            text_mask=text_mask,
            spatial_shapes=encoded.spatial_shapes,
        )
        queries = decoded.intermediate_hidden_states  # (L, P, Q, C)
        offsets = self.detr_decoder.box_head(queries)
        return PairOutputs(
            logits=self.dot_product_scoring(queries, encoded.text_features, text_mask).squeeze(-1),
            boxes=(inverse_sigmoid(decoded.reference_boxes) + offsets).sigmoid(),
            presence=decoded.presence_logits.squeeze(-1),
            queries=queries[-1],
            memory=encoded.last_hidden_state,
            text=text,
            text_mask=text_mask,
        )

    def masks(
        self, found: PairOutputs, images: ImageMaps, pair: int, image: int, queries: Tensor
    ) -> Tensor:
        """Mask logits (N, h, w) at stride 3.5 of the square, of one pair's N queries.

        One pair at a time: the maps of a pair at this size are the largest tensors of the network.

        Args:
            found: Of :meth:`find`.
            images: Maps of the images.
            pair: The pair's index.
            image: Its image's index.
            queries: (N,), indices.
        """
        one = slice(pair, pair + 1)
        return self.mask_decoder(
            decoder_queries=found.queries[one, queries],
            backbone_features=[part[image : image + 1] for part in images.maps],
            encoder_hidden_states=found.memory[one],
            prompt_features=found.text[one],
            prompt_mask=found.text_mask[one],
        ).pred_masks[0]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates, as mmpretrain's encoders tell it.

        Args:
            param_name: Its name.
            prefix: What of the name is this module's.

        Returns:
            0 for the patch embedding, i + 1 for layer i of the image encoder, and the largest depth
            for all other parameters and for the position embedding, which the published recipe does
            not decay; and the number of depths.
        """
        number = len(self.vision_encoder.backbone.layers) + 2
        name = param_name.removeprefix(prefix)
        inner = name.removeprefix(_VIT)
        if inner == name or 'position_embeddings' in inner:
            return number - 1, number
        return (int(inner.split('.')[1]) + 1 if inner.startswith('layers.') else 0), number
