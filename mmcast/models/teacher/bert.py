"""mmdet's BERT for Grounding-DINO from a vocabulary alone: the detector's checkpoint has the
weights.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mmdet.models.language_models import BertModel
from mmdet.models.language_models.bert import BertEncoder
from mmengine.model import BaseModel
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertTokenizerFast
from transformers import BertModel as HuggingFaceBert

from mmcast.errors import CASTError
from mmcast.models.weights.reading import is_hub_name
from mmcast.registry import MODELS

BERT_SOURCE = 'https://huggingface.co/google-bert/bert-base-uncased'


class _Encoder(BertEncoder):
    """mmdet's encoder around a BERT that is built, not downloaded."""

    def __init__(self, config: BertConfig) -> None:
        nn.Module.__init__(self)
        self.model = HuggingFaceBert(config, add_pooling_layer=False)
        self.language_dim = config.hidden_size
        self.num_layers_of_embedded = 1


@MODELS.register_module()
class BertTextEncoder(BertModel):
    """BERT as in mmdet's Grounding-DINO, under the same parameter names.

    mmdet's class downloads BERT's weights first and lets the detector's checkpoint replace them.
    This one needs the tokenizer and the config only, so a folder with ``vocab.txt`` is enough to
    work offline.

    Args:
        name: A folder with ``vocab.txt`` or ``tokenizer.json``, and ``config.json`` if the network
            is not bert-base; or a name on Hugging Face, whose few files are then downloaded once.
        max_tokens: Length of the longest prompt.
        special_tokens_list: Tokens that separate the classes of a prompt, which do not see each
            other.

    Raises:
        CASTError: If the files are not there; says which, from where and to which path.
    """

    def __init__(
        self,
        name: str = 'bert-base-uncased',
        max_tokens: int = 256,
        special_tokens_list: Sequence[str] = ('[CLS]', '[SEP]', '.', '?'),
    ) -> None:
        BaseModel.__init__(self)
        self.max_tokens = max_tokens
        self.pad_to_max = False
        self.use_sub_sentence_represent = True
        self.tokenizer, bert_config = _read_language_model(name)
        self.language_backbone = nn.Sequential()
        self.language_backbone.add_module('body', _Encoder(bert_config))
        self.special_tokens = self.tokenizer.convert_tokens_to_ids(list(special_tokens_list))


def check_language_model(name: str) -> None:
    """Raises CASTError where the files of a language model are not there, see
    :class:`BertTextEncoder`.
    """
    _read_language_model(name)


def _read_language_model(name: str) -> tuple[BertTokenizerFast, BertConfig]:
    folder = Path(name)
    if folder.is_dir():
        files = [file for file in ('tokenizer.json', 'vocab.txt') if (folder / file).is_file()]
        if not files:
            raise CASTError(_missing(f'{folder}/vocab.txt', folder))
        # bert-base-uncased is what BertConfig describes by default.
        config = (
            BertConfig.from_pretrained(folder)
            if (folder / 'config.json').is_file()
            else BertConfig()
        )
        if 'tokenizer.json' in files:
            tokenizer = BertTokenizerFast(
                tokenizer_file=str(folder / 'tokenizer.json'), do_lower_case=True
            )
        else:
            tokenizer = BertTokenizerFast(str(folder / 'vocab.txt'), do_lower_case=True)
    elif not is_hub_name(name):
        raise CASTError(_missing(f'folder {name}', folder))
    else:
        try:
            tokenizer, config = (
                AutoTokenizer.from_pretrained(name),
                BertConfig.from_pretrained(name),
            )
        except (OSError, ValueError) as error:  # no network, no such name, no such folder
            raise CASTError(_missing(f'folder {name}', folder)) from error
    return tokenizer, config


def _missing(what: str, folder: Path) -> str:
    place = folder if os.sep in str(folder) else Path('weights', folder)
    return (
        f'language model of Grounding-DINO: {what} not found, and Hugging Face gave none; download '
        f'vocab.txt and config.json from {BERT_SOURCE} into {place} and set language_model.name to '
        'that folder'
    )
