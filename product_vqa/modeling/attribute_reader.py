"""`AttributeReader`: an adapter on its base model, which answers questions about images."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from product_vqa.modeling.adapter import Adapter, download_adapter, locate_base_model
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribution import AnswerRegion, find_box, make_heat_map
from product_vqa.modeling.batch_size import find_largest
from product_vqa.modeling.calibration import Calibration, Grounding
from product_vqa.modeling.collator import Batch, Row, make_generation_batch, take_rows
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers, is_not_finite, not_finite_remedy
from product_vqa.modeling.grounding import calibrate_answers, weigh_rows
from product_vqa.modeling.item_batches import (
    DEFAULT_THREADS,
    PreparedItem,
    answer_batches,
    check_arguments,
    collate_items,
    prepare_batches,
)
from product_vqa.modeling.items import ImageItem, Item, check_ocr, load_rows
from product_vqa.modeling.loading import check_image_size, load_processor
from product_vqa.modeling.lora import apply_adapter
from product_vqa.modeling.model_thread import ModelThread
from product_vqa.modeling.reader_loading import choose_schema, dequantizes_base, find_calibration, load_model_for
from product_vqa.modeling.reader_provenance import make_provenance
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine, read_text
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

logger = logging.getLogger(__name__)


class AttributeReader:
    """Reads product attributes from images. Any number of threads may use one reader; the model serves one at a time.

    >>> reader = AttributeReader.from_pretrained("user/adapter")
    >>> answer = reader.read("pack.jpg", "item_weight")
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
        schema: Schema,
    ) -> None:
        """See `from_pretrained`."""
        self.schema = schema
        self.model = model
        self.processor = processor
        self.num_beams = num_beams
        self.calibration = calibration or Calibration()
        self.automaton = (
            AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema, allow_empty=allow_empty)
            if constrain
            else None
        )
        self.provenance = provenance or {}  # adapter and base model by commit or hash, precision, calibration
        self.base_model = base_model
        self.searches_all = False  # whether rows are searched even where a candidate has won: for fitting weights
        self.max_new_tokens: int | None = None  # None: the length of the longest valid answer
        self._has_warned = False
        self._model_thread = ModelThread()
        self._decoding = ThreadPoolExecutor(DEFAULT_THREADS, thread_name_prefix="product-vqa-images")
        self._lock = threading.RLock()  # neither a model nor a tokenizer may be used by two threads at a time
        self._batch_size: int | None = None  # what `find_batch_size` found

    @classmethod
    def from_pretrained(
        cls,
        adapter: str | Adapter | None,
        *,
        base_model: str | Location | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        load_in_4bit: bool | None = None,
        device: str | torch.device | None = None,
        constrain: bool = True,
        allow_empty: bool = False,
        num_beams: int = 1,
        calibrated: bool = True,
        schema: Schema | None = None,
    ) -> AttributeReader:
        """Load an adapter (Hub id[@revision] or folder) on the base model that its config names.

        - `base_model` replaces the base model that the config names. If `adapter` is None, it answers alone.
        - `load_in_4bit` None loads the base model as in training. If that was in 4 bits (NF4), the weights are
          dequantized and the adapter is merged into them. True keeps the weights in 4 bits and the adapter separate:
          less memory, more time. False loads the weights as they were published.
        - `dtype` "auto" is the dtype of the training or of an exported model, if the device supports it natively.
        - `device` defaults to the first GPU, or else the CPU.
        - `constrain` makes every answer valid; with `allow_empty`, it may also be empty. `constrain` False lets the
          model generate any text.
        - `num_beams` above 1 adds alternatives to each answer.
        - `calibrated` applies the adapter's calibration.json to the confidences, if it was fitted on this adapter.
        - `schema` has the questions and answers of a base model alone; default: that of an exported model, or else
          the challenge's. An adapter has its own.

        The processor is the adapter's, or else the base model's. Raises InputError if something cannot be
        loaded or is incompatible.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        loaded = adapter if isinstance(adapter, Adapter) else None
        if isinstance(adapter, str):
            with argument("adapter"):
                loaded = download_adapter(locate(adapter, revision=revision))
        base = locate_base_model(loaded, base_model=base_model)
        processor_location = (loaded.processor if loaded else None) or base
        processor = load_processor(processor_location)
        dequantizes = dequantizes_base(loaded, load_in_4bit=load_in_4bit)
        model = load_model_for(loaded, base, dtype=dtype, load_in_4bit=load_in_4bit, device=device)
        check_image_size(model.config, processor, base_model=base)
        if loaded is not None:
            with argument("adapter"):
                model = apply_adapter(model, loaded, base_model=base, merge=not load_in_4bit)
        calibration = find_calibration(loaded, base) if calibrated else None
        schema = choose_schema(loaded, base, schema)
        try:
            return cls(
                model.eval(),
                processor,
                constrain=constrain,
                allow_empty=allow_empty,
                num_beams=num_beams,
                calibration=calibration,
                provenance=make_provenance(
                    loaded,
                    base,
                    calibration,
                    dtype=str(model.dtype),
                    in_4bit=load_in_4bit,
                    dequantized=dequantizes,
                    schema=schema,
                ),
                base_model=base,
                schema=schema,
            )
        except InputError as error:  # the tokenizer splits units otherwise
            raise InputError(f"{processor_location}: {error}") from error

    def read(self, image: ImageItem, entity_name: str, *, ocr: OcrEngine | ImageText | None = None) -> Answer:
        """Answer one question about one image. Raises ValueError as `read_batch` does.

        `ocr` grounds the answer in the text of the image: an engine that reads it, such as that of
        `product_vqa.ocr.engine.load_engine()`, or what it has read.
        """
        check_ocr(ocr, takes="text")
        return self.read_batch([image], [entity_name], ocr=[ocr] if isinstance(ocr, ImageText) else ocr)[0]

    def read_many(
        self,
        items: Iterable[Item],
        *,
        entity_name: str | None = None,
        on_error: Literal["return", "raise"] = "return",
        batch_size: int | None = None,
        num_threads: int | None = None,
        allow_urls: bool = False,
        allow_private_hosts: bool = False,
        ocr: OcrEngine | None = None,
    ) -> Iterator[Answer]:
        """Answer a question about each item, in order; with a GPU, while the images of the next batch are decoded.

        An item is a path, the bytes of an image file, a NumPy array (height, width, 3) of uint8, a Pillow image, or a
        pair of one of them and an attribute; `entity_name` is the attribute of all other items. `items`
        may be a generator of any length: at most two batches are held in memory.

        - `on_error` "return" gives an answer with an `error`, which names the item, for an item whose image cannot be
          loaded or whose attribute is unknown. "raise" raises it as an ImageError, after the answers before it.
        - `batch_size` is the number of items that the model answers at once; default: what fits on the GPU, or 32.
        - `num_threads` decode the images; default: as many as there are cores, up to 8, shared by all calls.
        - `allow_urls` downloads items that are http or https URLs, from public addresses only; with
          `allow_private_hosts` from others too, for URLs that you wrote yourself. Otherwise a URL is an error.
        - `ocr` is an engine that reads the images too, and grounds the answers as in `read`.

        Raises ValueError at once for an argument that is wrong for all items.
        """
        check_arguments(
            items, entity_name=entity_name, on_error=on_error, batch_size=batch_size, num_threads=num_threads,
            schema=self.schema, allow_urls=allow_urls, allow_private_hosts=allow_private_hosts, ocr=ocr,
        )  # fmt: skip
        if ocr is not None:
            self._check_grounding()
        batches = prepare_batches(
            items, entity_name=entity_name, schema=self.schema, processor=self.processor,
            batch_size=batch_size or self._default_batch_size(),
            decoding=self._decoding, num_threads=num_threads, engine=ocr,
            reads_ahead=allow_urls or self.model.device.type != "cpu",
            allow_urls=allow_urls, allow_private_hosts=allow_private_hosts,
        )  # fmt: skip
        return answer_batches(batches, self._answer_items, raises=on_error == "raise")

    def _default_batch_size(self) -> int:
        with self._lock:
            if self._batch_size is None:
                self._batch_size = self.find_batch_size()
            return self._batch_size

    def _answer_items(self, items: Sequence[PreparedItem]) -> list[Answer]:
        names = [item.entity_name for item in items]
        candidates = None
        if any(item.text is not None for item in items):
            candidates = [
                None if item.text is None else self.find_candidates(item.text, item.entity_name) for item in items
            ]

        def answer() -> list[Answer]:
            with self._lock:
                batch = collate_items(items, processor=self.processor, schema=self.schema)
                return self.answer(batch, names, candidates=candidates)

        return self._model_thread.run(answer)

    def read_batch(
        self,
        images: Sequence[ImageItem],
        entity_names: Sequence[str],
        *,
        ocr: OcrEngine | Sequence[ImageText] | None = None,
    ) -> list[Answer]:
        """Answer one question about each image, in one batch. An object that occurs twice is encoded once.

        `ocr` grounds the answers in the text of the images: an engine, or the texts of each image.

        An image is a path, the bytes of an image file, a NumPy array or a Pillow image. Raises ValueError for lists of
        different lengths and for an unknown entity, and ImageError (a ValueError) for an image that cannot be decoded
        or exceeds the limits of `product_vqa.images`. The message names the position in the list.
        """
        check_ocr(ocr, takes="texts")
        if ocr is not None:
            self._check_grounding()
            if isinstance(ocr, Sequence) and len(ocr) != len(images):
                raise ValueError(f"`ocr` has the texts of {len(ocr)} images, but there are {len(images)} `images`")
        rows = load_rows(images, entity_names, schema=self.schema)
        candidates = None
        if ocr is not None:
            texts = ocr if isinstance(ocr, Sequence) else self._read_texts([row["image"] for row in rows], ocr)
            candidates = [
                self.find_candidates(text, row["entity_name"]) for text, row in zip(texts, rows, strict=True)
            ]

        def answer() -> list[Answer]:
            with self._lock:
                batch = self.make_batch(rows)
                return self.answer(batch, [row["entity_name"] for row in rows], candidates=candidates)

        return self._model_thread.run(answer) if rows else []

    def find_candidates(self, text: ImageText, entity_name: str) -> list[Candidate] | None:
        """The answers that the text of an image suggests, for `answer`; None where there are no rules."""
        grounding = self.calibration.grounding
        return CandidateRules(self.schema, grounding.unit_shares if grounding else {}).find(text, entity_name)

    def _read_texts(self, images: Sequence[Image.Image], engine: OcrEngine) -> list[ImageText]:
        """The texts of each image; an object that occurs twice is read once."""
        distinct = {id(image): image for image in images}
        texts = dict(zip(distinct, self._decoding.map(partial(read_text, engine), distinct.values()), strict=True))
        return [texts[id(image)] for image in images]

    def _check_grounding(self) -> Grounding:
        if self.automaton is None:
            raise ValueError("`ocr` needs constrained answers: leave `constrain` on")
        if self.calibration.grounding is None:
            raise ValueError(
                "`ocr` needs an adapter whose calibration.json says how far to trust OCR: inference.calibrate with "
                "`ground` ocr finds it out"
            )
        return self.calibration.grounding

    def locate(self, image: ImageItem, entity_name: str, *, prediction: str | None = None) -> AnswerRegion:
        """Return which part of the image an answer was read from: a heat map over the image tokens, and a box.

        `prediction` is the answer to locate, in canonical form; default: that of `read`. It takes one forward and one
        backward pass, the memory of the activations and no memory for weights. Raises ValueError as `read_batch` does,
        and for a `prediction` that is not a valid answer.
        """
        (row,) = load_rows([image], [entity_name], schema=self.schema)
        if prediction is None:
            prediction = self.read(row["image"], entity_name).prediction
        elif prediction and not self.schema[entity_name].is_valid(prediction):
            raise ValueError(f"`prediction` {prediction!r} is not a valid {entity_name}")
        if not prediction:
            return AnswerRegion(prediction)
        with self._lock:
            heat_map = make_heat_map(
                self.model, {**row, "entity_value": prediction}, processor=self.processor, schema=self.schema
            )
        if heat_map is None:
            return AnswerRegion(prediction)
        return AnswerRegion(prediction, heat_map, find_box(heat_map, size=row["image"].size))

    def make_batch(self, rows: Sequence[Row]) -> Batch:
        """Batch rows (`image`, `entity_name`) for `answer`."""
        return make_generation_batch(rows, processor=self.processor, schema=self.schema)

    def find_batch_size(self, largest: int = 512) -> int:
        """Find the largest batch that fits in a GPU's memory: `largest`, half of it, a quarter, ...; 32 on a CPU."""
        if self.model.device.type == "cpu":
            return min(largest, 32)
        entity_name = max(self.schema.names, key=lambda name: len(self.schema[name].question))

        def attempt(size: int) -> None:
            images = [Image.new("RGB", (1, 1), (shade % 256, 0, 0)) for shade in range(size)]
            batch = self.make_batch([{"image": image, "entity_name": entity_name} for image in images])
            self._answer_at_once(batch, [entity_name] * size, None)

        return find_largest(attempt, largest)

    def answer(
        self,
        batch: Batch,
        entity_names: Sequence[str],
        *,
        candidates: Sequence[Sequence[Candidate] | None] | None = None,
    ) -> list[Answer]:
        """Answer a batch of `make_generation_batch`; none if it has no rows.

        `candidates` are those of `find_candidates` for each row: they ground the answers in the text of the images. A
        batch that does not fit in the device's memory is answered in halves.
        """
        if not entity_names:
            return []
        try:
            with self._lock:
                return self._answer_at_once(batch, entity_names, candidates)
        except RuntimeError as error:
            if len(entity_names) == 1 or not should_reduce_batch_size(error):
                raise
        clear_device_cache()  # not in `except`, where the failed batch is still in memory
        logger.warning(
            "out of memory with %d rows in a batch: it is split in half and retried; "
            "set a smaller batch size to avoid this",
            len(entity_names),
        )
        half = len(entity_names) // 2
        return [
            answer
            for rows in (slice(0, half), slice(half, len(entity_names)))
            for answer in self.answer(
                take_rows(batch, rows), entity_names[rows], candidates=None if candidates is None else candidates[rows]
            )
        ]

    def _answer_at_once(
        self, batch: Batch, entity_names: Sequence[str], candidates: Sequence[Sequence[Candidate] | None] | None
    ) -> list[Answer]:
        weighed = None
        if candidates is not None:
            weights = self._check_grounding().weights
            weighed = weigh_rows(candidates, weights, entity_names=entity_names, schema=self.schema)
        answers = generate_answers(
            self.model,
            batch,
            entity_names=entity_names,
            processor=self.processor,
            automaton=self.automaton,
            schema=self.schema,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            candidates=weighed,
            searches_all=self.searches_all,
        )
        failed = sum(is_not_finite(answer.text, answer.confidence) for answer in answers)
        if failed and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The model's logits are not finite for %d of %d rows of a batch; their predictions are empty. %s",
                failed,
                len(answers),
                not_finite_remedy(self.model.dtype),
            )
        return calibrate_answers(answers, candidates, self.calibration)
