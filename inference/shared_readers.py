"""Readers by name: of one adapter as `predict` loads it, or of several adapters that share one base model."""

import re
from collections.abc import Sequence

from peft import PeftModel

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from product_vqa.modeling.adapter import Adapter, download_adapter, locate_base_model
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.calibration import load_calibration
from product_vqa.modeling.loading import check_image_size, load_processor
from product_vqa.modeling.lora import apply_adapters
from product_vqa.modeling.reader_loading import load_model_for
from product_vqa.provenance import CALIBRATION_FILE


class SharedReaders:
    """Readers by the name of their adapter. One thread answers with them: before a batch, it activates one."""

    def __init__(self, readers: dict[str, AttributeReader], *, model: PeftModel | None = None) -> None:
        """`model` has the adapters of several readers, named `adapter_0`, `adapter_1`, ... in their order."""
        self._readers = readers
        self._model = model
        self._active = next(iter(readers))

    @property
    def names(self) -> list[str]:
        return list(self._readers)

    def __getitem__(self, name: str) -> AttributeReader:
        return self._readers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def activate(self, name: str) -> AttributeReader:
        """Let the base model answer with this adapter."""
        if self._model is not None and name != self._active:
            self._model.set_adapter(f"adapter_{self.names.index(name)}", inference_mode=True)
        self._active = name
        return self._readers[name]


def load_readers(
    adapters: Sequence[str],
    *,
    base_model: str | None = None,
    dtype: str = "auto",
    load_in_4bit: bool | None = None,
    num_beams: int = 1,
    device: str = "cpu",
) -> SharedReaders:
    """Load one adapter as `AttributeReader.from_pretrained` does, or several on one base model, none of them merged.

    Without an adapter, the base model answers alone. An adapter is named by its repo or folder. Raises InputError for
    adapters that need different base models, or the same one in different precisions.
    """
    with argument("adapter"):
        loaded = [download_adapter(locate(name)) for name in adapters]
        names = [public_name(adapter.location) for adapter in loaded]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{repeated[0]} is the name of two adapters; rename a folder")
    bases = [locate_base_model(adapter, base_model=base_model) for adapter in (loaded or (None,))]
    if len(loaded) < 2:
        one = AttributeReader.from_pretrained(
            loaded[0] if loaded else None, base_model=bases[0], dtype=dtype, load_in_4bit=load_in_4bit,
            num_beams=num_beams, device=device,
        )  # fmt: skip
        return SharedReaders({(names[0] if names else public_name(bases[0])): one})
    for adapter, base in zip(loaded[1:], bases[1:], strict=True):
        check_same(loaded[0], adapter, bases[0], base)
    model = load_model_for(loaded[0], bases[0], dtype=dtype, load_in_4bit=load_in_4bit, device=device)
    processors = [load_processor(adapter.processor or bases[0]) for adapter in loaded]
    for processor in processors:
        check_image_size(model.config, processor, base_model=bases[0])
    with argument("adapter"):
        adapted = apply_adapters(
            model, {f"adapter_{number}": adapter for number, adapter in enumerate(loaded)}, base_model=bases[0]
        )
    model.eval()
    readers = {}
    for name, adapter, processor in zip(names, loaded, processors, strict=True):
        file = adapter.folder / CALIBRATION_FILE
        readers[name] = AttributeReader(
            model, processor, num_beams=num_beams, base_model=bases[0], schema=adapter.schema,
            calibration=load_calibration(file, adapter_sha256=adapter.sha256) if file.is_file() else None,
        )  # fmt: skip
    return SharedReaders(readers, model=adapted)


def check_same(first: Adapter, other: Adapter, first_base: Location, other_base: Location) -> None:
    """Raise InputError unless two adapters need the same base model, loaded alike."""
    pairs = {
        "base model": (first_base, other_base),
        "base model's settings": (first.base_settings, other.base_settings),
    }
    for what, (expected, found) in pairs.items():
        if found != expected:
            raise InputError(
                f"`adapter` {other.location} needs another {what} ({found}) than {first.location} ({expected}): serve "
                "them by two servers"
            )


def public_name(location: Location) -> str:
    """The name of a repo, or of a folder without its path."""
    name = location.name if location.folder is None else location.folder.resolve().name
    return re.sub(r"[^\w./-]", "_", name)
