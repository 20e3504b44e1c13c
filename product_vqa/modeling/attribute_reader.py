"""`AttributeReader`: an adapter and its base model, ready to answer."""

import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from peft import PeftModel
from PIL import Image
from safetensors import SafetensorError
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import Location, download, locate
from product_vqa.images import ImageError, as_image
from product_vqa.modeling.calibration import CALIBRATION_FILE, Calibration, load_calibration
from product_vqa.modeling.collator import Batch, make_generation_batch, take_rows
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import Answer, generate_answers, is_not_finite
from product_vqa.modeling.loading import check_image_size, dequantize, load_base_model, load_processor, resolve_dtype
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_sha256, processor_sha256
from product_vqa.task.prompt import TASK_FILE, BasePrecision, load_task
from product_vqa.task.schema import ENTITIES

logger = logging.getLogger(__name__)


class AttributeReader:
    """Reads attributes off product photographs.

    >>> reader = AttributeReader.from_pretrained("user/adapter")
    >>> answer = reader.read(Image.open("pack.jpg"), "item_weight")
    >>> answer.value, answer.unit, answer.confidence
    ('500.0', 'gram', 0.97)
    """

    def __init__(
        self,
        model: PaliGemmaForConditionalGeneration,
        processor: PaliGemmaProcessor,
        *,
        constrain: bool = True,
        allow_empty: bool = False,
        num_beams: int = 1,
        calibration: Calibration | None = None,
        provenance: dict[str, str | None] | None = None,
        base_model: Location | None = None,
    ) -> None:
        """See `from_pretrained`."""
        self.model = model
        self.processor = processor
        self.num_beams = num_beams
        self.calibration = calibration or Calibration()
        self.automaton = (
            AnswerAutomaton.from_tokenizer(processor.tokenizer, allow_empty=allow_empty) if constrain else None
        )
        self.provenance = provenance or {}  # adapter and base model with revisions or hashes, precision, calibration
        self.base_model = base_model
        self.max_new_tokens: int | None = None  # None: as many as the longest valid answer has
        self._has_warned = False

    @classmethod
    def from_pretrained(
        cls,
        adapter: str | None,
        *,
        base_model: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        load_in_4bit: bool | None = None,
        device: str | torch.device | None = None,
        constrain: bool = True,
        allow_empty: bool = False,
        num_beams: int = 1,
        calibrated: bool = True,
    ) -> "AttributeReader":
        """Load an adapter (Hub id[@revision] or folder) and the base that its config names, at the revision it names.

        `base_model` overrides that base; with `adapter` None the base answers alone. The processor is the adapter's,
        or else the base's. `device` defaults to the first GPU, or the CPU. Raises InputError if anything cannot be had
        or does not fit together.

        An adapter answers in the precision in which it was trained and scored: with `load_in_4bit` None, one that was
        trained on an NF4 base is merged into the dequantized NF4 weights. True keeps the base in 4 bits, which takes
        less memory and more time, and leaves the adapter beside it; False takes the base as it is published. `dtype`
        "auto" is that of the training too where the device computes in it natively.

        Answers are valid by construction; `allow_empty` lets them be nothing at all, `constrain` False lets the model
        say what it likes. With more than one beam an answer brings its runners-up. Confidences are calibrated by the
        adapter's calibration.json if it has one that was fitted on this very adapter, and `calibrated` is not False;
        else they are the model's own.
        """
        if adapter is None and base_model is None:
            raise InputError("`adapter` or `base_model` is needed: user/name, or a folder")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with argument("adapter"):
            adapter_location = locate(adapter, revision=revision) if adapter is not None else None
            adapter_folder = _fetch_adapter(adapter_location) if adapter_location else None
        trained = _trained_precision(adapter_folder, adapter=str(adapter_location))
        base = _locate_base(adapter_folder, adapter=adapter, base_model=base_model)
        has_processor = adapter_folder is not None and (adapter_folder / "processor_config.json").is_file()
        processor = load_processor(Location(str(adapter_folder)) if has_processor else base)
        follows = load_in_4bit is None and trained is not None and trained.load_in_4bit
        with argument("base_model"):
            model = load_base_model(
                base,
                dtype=resolve_dtype(dtype, device=device, trained=trained.dtype if trained else None),
                load_in_4bit=bool(load_in_4bit) or follows,
                device=device,
            )
        check_image_size(model.config, processor, base_model=base)
        if follows:
            model = dequantize(model)
        if adapter_folder is not None:
            model = _add_adapter(model, adapter_folder, adapter=str(adapter), base=base, merge=not load_in_4bit)
        # `generate` hands lm_head a strided slice, for which a CPU copies the whole matrix once a row and step.
        model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
        sha256 = adapter_sha256(adapter_folder) if adapter_folder is not None else None
        calibration = None
        if calibrated and adapter_folder is not None and (adapter_folder / CALIBRATION_FILE).is_file():
            calibration = load_calibration(adapter_folder / CALIBRATION_FILE, adapter_sha256=sha256)
        provenance = {
            "adapter": str(adapter_location),
            "adapter_sha256": sha256,
            "processor_sha256": processor_sha256(adapter_folder) if adapter_folder and has_processor else None,
            "base_model": str(base),
            "base_precision": "nf4" if load_in_4bit else "nf4, dequantized" if follows else "not quantized",
            "adapter_merged": None if adapter is None else "no" if load_in_4bit else "yes",
            "dtype": str(model.dtype),
            "calibration": str(calibration or Calibration()),
        }
        return cls(
            model.eval(),
            processor,
            constrain=constrain,
            allow_empty=allow_empty,
            num_beams=num_beams,
            calibration=calibration,
            provenance=provenance,
            base_model=base,
        )

    def read(self, image: Image.Image | bytes, entity_name: str) -> Answer:
        """Answer one question about one image. Raises ValueError as `read_batch` does."""
        return self.read_batch([image], [entity_name])[0]

    def read_batch(self, images: Sequence[Image.Image | bytes], entity_names: Sequence[str]) -> list[Answer]:
        """Answer one question about each image, in one batch; an object that is in it twice is encoded once.

        An image is one of Pillow, or the bytes of a file. Raises ValueError, naming the position in the batch, for
        anything else, for an image that cannot be decoded or is beyond the limits of `product_vqa.images`
        (ImageError), and for an entity that is not one of the eight.
        """
        for name, values in (("images", images), ("entity_names", entity_names)):
            is_scalar = getattr(values, "ndim", 1) == 0  # an array's, which is Iterable in name alone
            if (
                is_scalar
                or not isinstance(values, Iterable)
                or isinstance(values, str | bytes | Mapping | Image.Image)
            ):
                raise ValueError(f"{name} must be a list, got {type(values).__name__}; read() takes a single one")
        images, entity_names = list(images), list(entity_names)
        if len(images) != len(entity_names):
            raise ValueError(f"as many entity_names as images are needed, got {len(images)} and {len(entity_names)}")
        rows = []
        decoded: dict[int, Image.Image] = {}
        for position, (image, entity_name) in enumerate(zip(images, entity_names, strict=True)):
            if not isinstance(entity_name, str) or entity_name not in ENTITIES:
                raise ValueError(
                    f"entity_names[{position}]: unknown entity_name {entity_name!r}; known are {', '.join(ENTITIES)}"
                )
            try:
                if id(image) not in decoded:
                    decoded[id(image)] = as_image(image)
            except ImageError as error:
                raise ImageError(f"images[{position}]: {error}") from error
            rows.append({"image": decoded[id(image)], "entity_name": entity_name})
        return self.answer(make_generation_batch(rows, processor=self.processor), entity_names) if rows else []

    def find_batch_size(self, largest: int = 512) -> int:
        """The largest of `largest`, half of it, a quarter, ..., for which a GPU's memory suffices; 32 on a CPU."""
        if self.model.device.type == "cpu":
            return min(largest, 32)
        entity_name = max(ENTITIES, key=len)
        size = largest
        while size > 1:
            images = [Image.new("RGB", (1, 1), (shade % 256, 0, 0)) for shade in range(size)]
            batch = make_generation_batch(
                [{"image": image, "entity_name": entity_name} for image in images], processor=self.processor
            )
            try:
                self._answer_at_once(batch, [entity_name] * size)
                break
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
            clear_device_cache()  # outside of `except`, which still holds the failed batch
            size //= 2
        clear_device_cache()
        return size

    def answer(self, batch: Batch, entity_names: Sequence[str]) -> list[Answer]:
        """Answer a batch of `make_generation_batch`; none if it has no rows.

        A batch that does not fit in the device's memory is answered in halves.
        """
        if not entity_names:
            return []
        try:
            return self._answer_at_once(batch, entity_names)
        except RuntimeError as error:
            if len(entity_names) == 1 or not should_reduce_batch_size(error):
                raise
        clear_device_cache()  # outside of `except`, which still holds the failed batch
        logger.warning(
            "out of memory with %d rows in a batch: answered in halves; a smaller batch size avoids the attempt",
            len(entity_names),
        )
        half = len(entity_names) // 2
        return [
            answer
            for rows in (slice(0, half), slice(half, len(entity_names)))
            for answer in self.answer(take_rows(batch, rows), entity_names[rows])
        ]

    def _answer_at_once(self, batch: Batch, entity_names: Sequence[str]) -> list[Answer]:
        answers = generate_answers(
            self.model,
            batch,
            entity_names=entity_names,
            processor=self.processor,
            automaton=self.automaton,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
        )
        failed = sum(is_not_finite(answer.text, answer.confidence) for answer in answers)
        if failed and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the model's logits are not finite for %d of %d rows in a batch: these are answered with nothing. %s",
                failed, len(answers), not_finite_remedy(self.model.dtype),
            )  # fmt: skip
        return [self.calibration.apply(answer) for answer in answers]


def _fetch_adapter(location: Location) -> Path:
    folder = download(location, patterns=["*.json", ADAPTER_WEIGHTS, "tokenizer*"])
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{location} holds no {name}: is it a LoRA adapter? (Pickles are not loaded.)")
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError:  # UnicodeDecodeError is one
        config = None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise InputError(f"{location}: its {ADAPTER_CONFIG} is damaged or not peft's; fetch it again")
    return folder


def _trained_precision(folder: Path | None, *, adapter: str) -> BasePrecision | None:
    """Of the adapter's base model in training; None where it is not recorded. Raises InputError for another prompt."""
    if folder is None or not (folder / TASK_FILE).is_file():
        return None
    return load_task(folder / TASK_FILE, adapter=adapter)


def not_finite_remedy(dtype: torch.dtype) -> str:
    """What to do where logits are not finite."""
    if dtype == torch.float32:
        return "At float32 that comes from the weights: look at the adapter's"
    return f"{str(dtype).removeprefix('torch.')} overflows more easily than others: `dtype` float32 answers them"


def _locate_base(adapter_folder: Path | None, *, adapter: str | None, base_model: str | None) -> Location:
    if base_model is not None:
        with argument("base_model"):
            return locate(base_model)
    assert adapter_folder is not None
    config = json.loads((adapter_folder / ADAPTER_CONFIG).read_text())
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name:
        raise InputError(f"`adapter` {adapter}: its {ADAPTER_CONFIG} names no base model; pass `base_model`")
    try:
        return locate(name, revision=revision)
    except InputError as error:
        raise InputError(
            f"`base_model` {error} (the base model that {adapter} names; pass `base_model` to load it from elsewhere)"
        ) from error


def _add_adapter(
    model: PaliGemmaForConditionalGeneration, folder: Path, *, adapter: str, base: Location, merge: bool
) -> PaliGemmaForConditionalGeneration:
    with warnings.catch_warnings():
        # peft only warns where weights are missing, and the model answers as if it had not been trained.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, str(folder))
        except SafetensorError as error:
            raise InputError(
                f"`adapter` {adapter}: its {ADAPTER_WEIGHTS} is damaged ({first_line(error)}): fetch it again "
                "(git lfs pull, where it is the pointer of a Git LFS file)"
            ) from error
        except (ValueError, RuntimeError, KeyError, UserWarning) as error:
            # torch lists each weight on a line of its own, below a first line that says nothing.
            sizes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
            reason = sizes[0] if sizes else first_line(error)
            raise InputError(f"`adapter` {adapter} does not fit base model {base}: {reason}") from error
    # A merged adapter costs nothing at each step; into 4-bit weights it cannot be merged without loss.
    answering = adapted.merge_and_unload() if merge else adapted.get_base_model()
    assert isinstance(answering, PaliGemmaForConditionalGeneration)
    return answering
