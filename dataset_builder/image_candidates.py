"""What OCR and rules find in the images of a split that may answer its rows."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from datasets import Dataset
from tqdm import tqdm

from product_vqa.images import ImageError, as_image
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.interface import OcrEngine
from product_vqa.ocr.stored_texts import StoredTexts
from product_vqa.ocr.text_files import hash_image
from product_vqa.ocr.unit_shares import count_shares
from product_vqa.task.attributes import Schema

_LINKS_AT_ONCE = 32  # images that are in memory
ReadText = Callable[[int], ImageText | None]


def find_in_images(
    positions: Sequence[int], dataset: Dataset, *, schema: Schema, read_text: ReadText
) -> Iterator[tuple[int, list[Candidate]]]:
    """Rows of a split, by their positions, with the candidates of their image, best first; each image is read once.

    Rows without an image that can be read are not among them. `read_text` gives the text of a row's image, in threads.
    """
    names, labels = dataset["entity_name"][:], dataset["entity_value"][:]
    shares = count_shares(((names[position], labels[position], 1) for position in positions), schema)
    rules = CandidateRules(schema, shares)
    links = dataset["image_link"][:]
    by_link: defaultdict[str, list[int]] = defaultdict(list)
    for position in positions:
        by_link[links[position]].append(position)
    groups = list(by_link.values())
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, tqdm(total=len(groups), desc="images") as progress:
        for start in range(0, len(groups), _LINKS_AT_ONCE):
            chosen = groups[start : start + _LINKS_AT_ONCE]
            for group, text in zip(chosen, pool.map(read_text, [group[0] for group in chosen]), strict=True):
                progress.update()
                if text is not None:
                    for position in group:
                        yield position, rules.find(text, names[position]) or []


def text_reader(dataset: Dataset, engine: OcrEngine) -> ReadText:
    """Reads the image of a row with an engine; None if there is none, or it cannot be decoded."""

    def read(position: int) -> ImageText | None:
        image = dataset[position]["image"]
        try:
            return None if image is None else engine.read(as_image(image))
        except ImageError:
            return None

    return read


def stored_reader(dataset: Dataset, texts: StoredTexts) -> ReadText:
    """The texts that the dataset has; None for an image of which it has none, or those of another one at its URL."""

    def read(position: int) -> ImageText | None:
        row = dataset[position]
        content = None if row["image"] is None else row["image"]["bytes"]
        return texts.find(row["image_link"], None if content is None else hash_image(content))

    return read
