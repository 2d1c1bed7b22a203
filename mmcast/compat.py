"""The one place that papers over other packages' rough edges. Imports neither torch nor mmcv."""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from mmcast.config_text import lay_out
from mmcast.errors import CASTError

_STAND_IN = Path(__file__).with_name('mmcv_ext.py')
_MARK = 'drops_onedl_noise'
_ONEDL_NOISE = 'Could not import OneDL'


class OperatorFinder:
    """Answers ``import mmcv._ext`` with mmcast's stand-in.

    It stands last in ``sys.meta_path``, so Python asks it only after it has found no compiled
    module.
    """

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == 'mmcv._ext':
            return importlib.util.spec_from_file_location(fullname, _STAND_IN)
        return None


class ImportWatcher:
    """Hears of every import first; loads the modules of :data:`_SURROUNDINGS` within a context,
    and patches those of :data:`_PATCHES` once they are loaded.

    Doing that at once would import MMEngine and torch, which those who only run an ONNX file may
    not have.
    """

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname in ('mmdet', 'mmpretrain'):
            _drop_onedl_noise()
        if fullname not in _PATCHES and fullname not in _SURROUNDINGS:
            return None
        others = (finder for finder in sys.meta_path if finder is not ImportWatcher)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            _patch_around(spec.loader, fullname)
        return spec


def _patch_around(loader: Any, name: str) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        with _SURROUNDINGS.get(name, contextlib.nullcontext)():
            execute(module)
        if name in _PATCHES:
            _PATCHES[name](module)

    loader.exec_module = exec_module


def _inherit_shipped_configs(config: ModuleType) -> None:
    """Lets ``_base_ = 'mmcast::cast_toy.py'`` mean a config shipped with mmcast.

    MMEngine's table of packages is fixed, and it refuses a name without a folder. As with other
    packages, the types of such a base are looked up in ours, whatever the ``default_scope``.
    """
    original = config.Config._get_cfg_path

    @functools.wraps(original)
    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        from mmcast.configs import SCOPE, find_shipped

        if not cfg_path.startswith(SCOPE):
            return original(cfg_path, filename)
        return str(find_shipped(cfg_path)), SCOPE.removesuffix('::')

    config.Config._get_cfg_path = staticmethod(_get_cfg_path)
    config.Config.pretty_text = property(functools.partial(_lay_out, config.Config.pretty_text))


def _lay_out(original: Any, config: Any) -> str:
    """``Config.pretty_text`` without yapf, which takes one to two seconds for a config; MMEngine
    asks for it five times a run and once a checkpoint.
    """
    wanted = config._format_python_code
    object.__setattr__(config, '_format_python_code', False)
    try:
        text = original.fget(config)
    finally:
        object.__setattr__(config, '_format_python_code', wanted)
    return lay_out(text) if wanted else text


def _serve_shipped_configs(hub: Any) -> None:
    """Lets ``mmengine.hub.get_config`` and ``get_model`` find the configs shipped with mmcast."""
    original = hub.get_config

    @functools.wraps(original)
    def get_config(cfg_path: str, pretrained: bool = False) -> Any:
        from mmcast.configs import SCOPE, find_shipped

        if not cfg_path.startswith(SCOPE):
            return original(cfg_path, pretrained)
        cfg = hub.Config.fromfile(str(find_shipped(cfg_path)))
        if pretrained:
            cfg.model_path = _shipped_weights(hub, cfg_path.removeprefix(SCOPE))
        return cfg

    _replace(original, get_config)


def _shipped_weights(hub: ModuleType, name: str) -> str:
    """A file or an address of the weights that a metafile names for a config."""
    package = Path(__file__).parent
    try:
        weights = hub._get_cfg_metainfo(str(package), name)['Weights']
    except (OSError, KeyError, ValueError) as error:
        raise CASTError(
            f'mmcast::{name} has no pretrained weights; build it without pretrained=True and load '
            'a checkpoint of your own'
        ) from error
    return weights if '://' in weights else str(package / '.mim' / weights)


def _read_checkpoints_safely(checkpoint: Any) -> None:
    """Lets MMEngine read weights without running code in them, and refuse damaged ones: local
    files, downloads, and what its names for downloads stand for.

    By itself it runs the code where plain data are not enough, and in every download. Upstream's
    0.10.7 cannot read checkpoints of its own with torch 2.6 and later (mmengine#1655).
    """

    def load_from_local(filename: str, map_location: Any) -> Any:
        from mmcast.adapter_files import load_whole

        path = os.path.expanduser(filename)
        if not os.path.exists(path):
            raise CASTError(f'weights file {path} not found: check the path')
        return load_whole(path, map_location)

    def load_url(url: str, *args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        from mmcast.checkpoints import load_url

        return load_url(url, map_location)

    def load_any(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        from mmcast.checkpoints import load_stream

        if isinstance(file, (str, os.PathLike)):
            return load_from_local(os.fspath(file), map_location)
        return load_stream(file, map_location)

    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)
    checkpoint.load_url = load_url
    checkpoint._safe_torch_load = load_any


def _leave_out_multimodal(dependency: Any) -> None:
    """mmpretrain's multimodal models take seconds to import, and fail to with transformers 5."""
    dependency.WITH_MULTIMODAL = False


@contextlib.contextmanager
def _adafactor_on_demand() -> Iterator[None]:
    """Lets MMEngine register transformers' optimiser without importing it: with transformers'
    trainer, and peft, that takes as long as torch does.
    """
    try:
        import transformers
    except ImportError:
        yield
        return
    names = vars(transformers)
    known = 'Adafactor' in names

    def adafactor(params: Any, *args: Any, **settings: Any) -> Any:
        return transformers.Adafactor(params, *args, **settings)

    if not known:
        names['Adafactor'] = adafactor
    try:
        yield
    finally:
        if not known:
            del names['Adafactor']


class _OnDemand(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _seaborn_on_demand() -> Iterator[None]:
    """Lets mmdet import seaborn, and with it pandas, when it draws the errors of a tracker."""
    name = 'seaborn'
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    sys.modules[name] = _OnDemand(name)
    try:
        yield
    finally:
        del sys.modules[name]


def _keep_batch_encode_plus(tokenization: Any) -> None:
    """mmdet's language models call a method of tokenizers that transformers 5 has no more."""
    tokenizer = tokenization.PreTrainedTokenizerBase
    if not hasattr(tokenizer, 'batch_encode_plus'):
        tokenizer.batch_encode_plus = tokenizer.__call__


def _mask_pairs_of_tokens(bert: Any) -> None:
    """Lets BERT take what mmdet's Grounding-DINO gives it: a mask (B, T, T), True where a token
    sees another one.

    transformers 5 takes padding (B, T), or (B, 1, T, T) to be added to the attention's scores.
    """
    if hasattr(bert.BertModel, 'get_extended_attention_mask'):  # transformers 4 makes that of it
        return
    original = bert.BertModel.forward

    @functools.wraps(original)
    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, **inputs: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 3:
            hidden = ~attention_mask[:, None].bool()
            attention_mask = hidden * bert.torch.finfo(self.dtype).min
        return original(self, input_ids, attention_mask, **inputs)

    bert.BertModel.forward = forward


def _sample_in_full_precision(attention: Any) -> None:
    """Lets deformable attention sample where it is told to on a GPU under mixed precision, too.

    mmcv rounds the locations to the type of the values. bfloat16 keeps 8 bits of them: up to half a
    pixel off on a map with 256 columns. On a CPU it does not.
    """
    original: Any = attention.MultiScaleDeformableAttnFunction

    class InFullPrecision(original):
        @staticmethod
        def apply(value: Any, *inputs: Any) -> Any:
            if value.dtype.itemsize >= 4:
                return original.apply(value, *inputs)
            return original.apply(value.float(), *inputs).to(value.dtype)

    attention.MultiScaleDeformableAttnFunction = InFullPrecision


def _keep_peak_of_gpu_memory(utils: Any) -> None:
    """Lets the peak of a step stand, which a pipeline records at its end.

    MMEngine begins it anew with every line that it logs.
    """
    original = utils.get_max_cuda_memory

    @functools.wraps(original)
    def get_max_cuda_memory(device: Any = None) -> int:
        return utils.torch.cuda.max_memory_allocated(device) // 2**20

    _replace(original, get_max_cuda_memory)


def _replace(original: Callable, new: Callable) -> None:
    """In all modules that have it by its own name; some may have imported it before mmcast."""
    module: Any
    for module in list(sys.modules.values()):
        if getattr(module, '__dict__', {}).get(original.__name__) is original:
            setattr(module, original.__name__, new)


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    'mmcv.ops.multi_scale_deform_attn': _sample_in_full_precision,
    'mmengine.config.config': _inherit_shipped_configs,
    'mmengine.device.utils': _keep_peak_of_gpu_memory,
    'mmengine.hub.hub': _serve_shipped_configs,
    'mmengine.runner.checkpoint': _read_checkpoints_safely,
    'mmpretrain.utils.dependency': _leave_out_multimodal,
    'transformers.models.bert.modeling_bert': _mask_pairs_of_tokens,
    'transformers.tokenization_utils_base': _keep_batch_encode_plus,
}


_SURROUNDINGS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    'mmdet.utils.mot_error_visualize': _seaborn_on_demand,
    'mmengine.optim.optimizer.builder': _adafactor_on_demand,
}


def _drop_onedl_noise() -> None:
    try:
        import mmengine.logging
    except ImportError:  # mmcast env says so in words
        return
    if not hasattr(mmengine.logging.print_log, _MARK):
        mmengine.logging.print_log = _without_onedl_noise(mmengine.logging.print_log)


def _without_onedl_noise(print_log: Callable) -> Callable:
    """The same ``print_log`` but for one line.

    mmdet and mmpretrain print it at import, on every rank, where an optional data set package is
    missing.
    """

    @functools.wraps(print_log)
    def wrapper(msg: Any, *args: Any, **kwargs: Any) -> None:
        if msg != _ONEDL_NOISE:
            print_log(msg, *args, **kwargs)

    setattr(wrapper, _MARK, True)
    return wrapper


def install() -> None:
    """Put the stand-in for missing mmcv operators in place, calm OpenMP, patch MMEngine and
    mmpretrain when they are imported, or now if they are.

    Calling it again changes nothing. Must run before mmdet is imported: ``import mmcast`` does it.
    It imports neither torch nor MMEngine itself.
    """
    # Read when torch is loaded. CPU threads that spin while they wait for one another starve the
    # data loader, and with any other load on the machine a step takes ten times as long. A person's
    # own setting stays.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    if OperatorFinder not in sys.meta_path:
        sys.meta_path.append(OperatorFinder)
    if ImportWatcher not in sys.meta_path:
        sys.meta_path.insert(0, ImportWatcher)
        for name, patch in _PATCHES.items():
            if name in sys.modules:
                patch(sys.modules[name])
