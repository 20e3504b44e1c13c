"""Download a LoRA adapter, find its base model, and apply it."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from safetensors import SafetensorError
from transformers import PaliGemmaForConditionalGeneration

from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import Location, download, locate
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_sha256
from product_vqa.task.prompt import TASK_FILE, BasePrecision, load_task


@dataclass(frozen=True)
class Adapter:
    """A downloaded adapter, and what its files say about its base model and training."""

    location: Location
    folder: Path
    sha256: str
    base_model_name: str | None
    base_model_revision: str | None
    base_precision: BasePrecision | None  # None if training did not record it

    @property
    def processor(self) -> Location | None:
        """Where the adapter's own processor is; None if it has none."""
        has_processor = (self.folder / "processor_config.json").is_file()
        return Location(str(self.folder)) if has_processor else None

    def locate_base_model(self) -> Location:
        """Locate the base model that the adapter's config names. Raises InputError if there is none."""
        if not self.base_model_name:
            raise InputError(f"{self.location}: its {ADAPTER_CONFIG} names no base model; pass `base_model`")
        with argument("base_model"):
            try:
                return locate(self.base_model_name, revision=self.base_model_revision)
            except InputError as error:
                raise InputError(
                    f"{error} (the base model that {self.location} names; pass `base_model` to load it from elsewhere)"
                ) from error


def download_adapter(location: Location) -> Adapter:
    """Download an adapter and read its config.

    Raises InputError if it is not a LoRA adapter, a file is damaged, or it was trained with another prompt template.
    """
    folder = download(location, patterns=["*.json", ADAPTER_WEIGHTS, "tokenizer*"])
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{location} has no {name}: is it a LoRA adapter? (Pickle files are not loaded.)")
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError:  # includes UnicodeDecodeError
        config = None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise InputError(f"{location}: its {ADAPTER_CONFIG} is damaged or not from peft; download it again")
    task_file = folder / TASK_FILE
    return Adapter(
        location,
        folder,
        adapter_sha256(folder),
        base_model_name=config.get("base_model_name_or_path"),
        base_model_revision=config.get("revision"),
        base_precision=load_task(task_file, adapter=str(location)) if task_file.is_file() else None,
    )


def apply_adapter(
    model: PaliGemmaForConditionalGeneration, adapter: Adapter, *, base_model: Location, merge: bool
) -> PaliGemmaForConditionalGeneration:
    """Add an adapter to its base model.

    A merged adapter costs no time per step, but cannot be merged into 4-bit weights without loss. Raises InputError if
    the weights are damaged or do not fit the base model.
    """
    with warnings.catch_warnings():
        # If weights are missing, peft only warns, and the model answers as if it were not trained.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, str(adapter.folder))
        except SafetensorError as error:
            raise InputError(
                f"{adapter.location}: its {ADAPTER_WEIGHTS} is damaged ({first_line(error)}): download it again (with "
                "git lfs pull, if it is the pointer of a Git LFS file)"
            ) from error
        except (ValueError, RuntimeError, KeyError, UserWarning) as error:
            # torch lists each weight on a line of its own, after a first line without details.
            mismatches = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
            reason = mismatches[0] if mismatches else first_line(error)
            raise InputError(f"{adapter.location} does not fit base model {base_model}: {reason}") from error
    applied = adapted.merge_and_unload() if merge else adapted.get_base_model()
    assert isinstance(applied, PaliGemmaForConditionalGeneration)
    return applied
