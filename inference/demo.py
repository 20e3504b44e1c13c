"""A web page that extracts attributes from an uploaded image. The same file runs as a Space.

    python -m inference.demo --adapter user/adapter
    python -m inference.demo --adapter user/adapter --push_to_hub --space_id user/reader

Its API is Gradio's: `/read`, `/read_all` and `/read_files`, for gradio_client and for HTTP requests.
"""

import base64
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inference.web_server import PageGuard, Uploads, upload_folder
from product_vqa.cli import parse_options, run
from product_vqa.documents import read_bytes
from product_vqa.errors import InputError
from product_vqa.images import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SIDE, ImageError, load_image
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.schema import is_challenge

if TYPE_CHECKING:
    import gradio as gr
    from PIL import Image

    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.ocr.interface import OcrEngine

MAX_WAITING = 32  # requests; beyond this they are rejected
MAX_NAMES = 6  # of attributes, in the page's first sentence
EXAMPLE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Rendered with `quickstart.rendering.render --test_rows 40 --train_rows 0 --seed 11`.
EXAMPLES = Path(__file__).parent / "examples"


@dataclass
class DemoOptions:
    """The model that answers, and where the page is served."""

    adapter: str = field(metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder."})
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    load_in_4bit: bool | None = field(
        default=None, metadata={"help": "As in inference.predict.", "nargs": "?", "const": True}
    )
    num_beams: int = field(default=3, metadata={"help": "Number of beams; the other beams are shown as alternatives."})
    examples: str | None = field(
        default=None,
        metadata={
            "help": "Folder of example images to choose from; default: rendered labels of the challenge's attributes."
        },
    )
    ground: Literal["none", "ocr"] | None = field(
        default=None,
        metadata={
            "help": "ocr: weigh the text of the image as inference.predict does. Default: ocr if calibration.json "
            "says that it is better and the extra `ocr` is installed."
        },
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0: every address of this machine."}
    )
    port: int = field(default=7860, metadata={"help": "Port to listen on; 0: any free port."})
    push_to_hub: bool = field(default=False, metadata={"help": "Push the page as a Space instead of serving it here."})
    space_id: str | None = field(default=None, metadata={"help": "The Space to push to: user/name."})
    hub_private_repo: bool = field(default=True, metadata={"help": "Whether a new Space is private."})

    def __post_init__(self) -> None:
        if not 1 <= self.num_beams <= 8:
            raise InputError(f"--num_beams must be 1 to 8, got {self.num_beams}")
        if self.push_to_hub and not self.space_id:
            raise InputError("--push_to_hub needs --space_id user/name")
        if self.examples and not Path(self.examples).is_dir():
            raise InputError(f"--examples {self.examples}: no such folder")


def main() -> None:
    (options,) = parse_options(
        DemoOptions, description="A web page that extracts attributes from an uploaded image.", argv=space_arguments()
    )
    examples = find_examples(options.examples)
    if options.push_to_hub:
        from inference.space import push_space

        url = push_space(
            options.space_id,
            adapter=options.adapter,
            base_model=options.base_model,
            load_in_4bit=options.load_in_4bit,
            num_beams=options.num_beams,
            examples=examples,
            private=options.hub_private_repo,
        )
        print(f"pushed: {url}")
        return
    try:
        import gradio  # noqa: F401  # optional: the extra `demo`
    except ImportError as error:
        raise InputError("the page needs Gradio: pip install 'product-vqa[demo]'") from error

    from inference.candidate_finder import find_engine
    from product_vqa.modeling.attribute_reader import AttributeReader

    reader = AttributeReader.from_pretrained(
        options.adapter,
        base_model=options.base_model,
        load_in_4bit=options.load_in_4bit,
        num_beams=options.num_beams,
    )
    if options.examples is None and is_challenge(reader.schema):
        examples = find_examples(str(EXAMPLES))
    with upload_folder() as folder:
        uploads = Uploads(folder)
        page = make_page(
            reader,
            title=options.adapter,
            examples=examples,
            uploads=uploads,
            schema=reader.schema,
            engine=find_engine(options.ground, reader),
        )
        uploads.keep_all()
        serve(page, uploads, folder=folder, host=options.host, port=options.port)


def serve(
    page: "gr.Blocks", uploads: Uploads, *, folder: Path, host: str, port: int, prevent_thread_lock: bool = False
) -> str:
    """Serve the page until the process is interrupted, behind `inference.web_server.PageGuard`; returns its URL."""
    from starlette.middleware import Middleware

    is_loopback = host in ("127.0.0.1", "localhost", "::1")
    guard = Middleware(
        PageGuard, folder=folder, uploads=uploads, max_upload_bytes=MAX_BYTES, is_loopback=is_loopback
    )  # fmt: skip
    # api_open=False: no request skips the queue. show_error=False: the page shows our own messages only.
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port or None,
        max_file_size=MAX_BYTES,
        share=False,
        show_error=False,
        footer_links=["api", "gradio"],
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        prevent_thread_lock=prevent_thread_lock,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        **theme(),
    )
    return str(url)


def space_arguments() -> list[str] | None:
    """The arguments in a Space, where there is no command line; None elsewhere."""
    if len(sys.argv) > 1:
        return None
    from inference.space import SETTINGS_FILE

    return ["--config", SETTINGS_FILE] if Path(SETTINGS_FILE).is_file() else None


def find_examples(folder: str | None) -> list[str]:
    """The images of a folder, in the order of their names; none without a folder."""
    if not folder:
        return []
    return [str(file) for file in sorted(Path(folder).iterdir()) if file.suffix.lower() in EXAMPLE_SUFFIXES]


def open_image(file: str | Path, *, uploads: Uploads | None = None) -> "Image.Image":
    """Load an uploaded image. Raises ValueError, with a message for the page, if it is not one or is too large."""
    try:
        read = uploads.read if uploads else read_bytes
        return load_image(read(Path(file), max_bytes=MAX_BYTES + 1))
    except OSError as error:
        raise ValueError("The uploaded file no longer exists. Upload it again.") from error
    except ImageError as error:
        reason = str(error).partition(":")[0]
        if reason in ("too_many_bytes", "too_many_pixels", "side_too_long"):
            raise ValueError(
                f"This image is too large. The limits are {MAX_BYTES // 2**20} MiB, {MAX_PIXELS // 10**6} million "
                f"pixels and {MAX_SIDE:,} pixels per side."
            ) from error
        if reason == "not_a_picture":
            raise ValueError(
                f"This file cannot be opened as an image. Supported formats: {', '.join(FORMATS)}."
            ) from error
        raise ValueError("This file cannot be opened as an image: it is damaged.") from error


def theme() -> dict[str, Any]:
    """Arguments of `launch` for system fonts: the browser downloads none."""
    import gradio as gr

    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return {"theme": gr.themes.Default(font=sans, font_mono=mono)}


def make_page(
    reader: "AttributeReader",
    *,
    title: str,
    examples: list[str] | None = None,
    uploads: Uploads | None = None,
    schema: Schema,
    engine: "OcrEngine | None" = None,
) -> "gr.Blocks":
    """Build the page; the caller serves it. `schema` has the attributes that the reader knows; `engine` grounds it."""
    import gradio as gr

    from inference.region_image import draw_region, text_region
    from inference.upload_table import MAX_FILES, header, read_uploads, write_csv
    from product_vqa.modeling.items import load_item
    from product_vqa.modeling.recent_texts import RecentTexts

    texts = describe_page(schema)
    has_shown = bool(schema.not_shown)  # the probability that the image shows an attribute, where an answer has it
    read_file = uploads.read if uploads else read_bytes
    ocr = RecentTexts(engine) if engine else None

    def open_upload(payload: Any) -> "Image.Image":
        if payload is None or payload.path is None:
            raise gr.Error("Upload an image first.", duration=6, print_exception=False)
        try:
            return open_image(payload.path, uploads=uploads)
        except ValueError as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    def list_uploads(payload: Any) -> list[Path]:
        files = [Path(file.path) for file in payload or []]
        if not files:
            raise gr.Error("Upload images first.", duration=6, print_exception=False)
        if len(files) > MAX_FILES:
            message = f"These are {len(files)} images; at most {MAX_FILES} are read at once."
            raise gr.Error(message, duration=8, print_exception=False)
        return files

    def read(image: Any, entity_name: str) -> dict[str, float]:
        answer = reader.read(image, entity_name, ocr=ocr)
        return {as_text(one.prediction, schema[entity_name]): one.confidence for one in (answer, *answer.alternatives)}

    def read_all(image: Any) -> list[list[Any]]:
        answers = reader.read_batch([image] * len(schema.names), schema.names, ocr=ocr)
        return [
            [
                name.replace("_", " "),
                as_text(answer.prediction, schema[name]),
                round(answer.confidence, 3),
                *([answer.shown if answer.shown is None else round(answer.shown, 3)] if has_shown else []),
            ]
            for name, answer in zip(schema.names, answers, strict=True)
        ]

    def locate(image: Any, entity_name: str) -> str:
        image = load_item(image)  # Gradio hands an array on
        answer = reader.read(image, entity_name, ocr=ocr)
        region = text_region(answer.prediction, answer.box, image) if answer.box else None
        region = region or reader.locate(image, entity_name, prediction=answer.prediction)
        return region_html(draw_region(image, region), entity_name, as_text(region.prediction, schema[entity_name]))

    def locate_row(image: Any, event: gr.SelectData) -> str:
        return locate(image, schema.names[event.index[0]])

    def read_files(files: list[Path], entity_names: list[str]) -> tuple[list[list[Any]], str]:
        if not entity_names:
            raise gr.Error("Choose an attribute.", duration=6, print_exception=False)
        rows = read_uploads(
            reader, files, entity_names, read_file=lambda file: read_file(file, max_bytes=MAX_BYTES + 1)
        )
        return rows, csv_link(write_csv(rows, has_shown=has_shown))

    choices = [(name.replace("_", " "), name) for name in schema.names]
    page: gr.Blocks
    with gr.Blocks(title=f"{title}: product attributes", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Product attributes from images\n{escape(title)} extracts {escape(texts.subject)} from a product "
            f"image. {texts.note}"
        )
        with gr.Tab("One image"), gr.Row():
            with gr.Column():
                image = gr.Image(label="image", sources=["upload", "clipboard"], height=360)
                # Gradio's own preprocessing would not say what is wrong with a file. Not a subclass: for that, Gradio
                # writes a file next to this one.
                image.preprocess = open_upload  # type: ignore[method-assign]
                entity = gr.Dropdown(choices, value=texts.first, label="attribute")
                with gr.Row():
                    one = gr.Button("Extract", variant="primary")
                    every = gr.Button(f"Extract all {texts.count}")
                if examples:
                    # Not gr.Examples, which makes a new image component, with Gradio's own preprocessing.
                    samples = gr.Dataset(
                        components=["image"], samples=[[one] for one in examples], type="index", label="examples"
                    )
                    samples.click(
                        lambda index: samples.samples[index][0]["path"], [samples], [image], api_visibility="private"
                    )
            with gr.Column():
                ranking = gr.Label(label="answer and alternatives", elem_id="answer")
                where = gr.Markdown(sanitize_html=False, elem_id="where")  # of our own HTML
                table = gr.Dataframe(
                    headers=["attribute", "answer", "confidence", *(["shown"] if has_shown else [])],
                    column_widths=["34%", "26%", "22%", "18%"] if has_shown else ["39%", "27%", "34%"],
                    interactive=False,
                    label=f"all {texts.count} attributes; select a row to see where it was read",
                    wrap=True,
                )
        with gr.Tab("Many images"):
            gr.Markdown(
                f"Up to {MAX_FILES} images, {MAX_BYTES // 2**20} MiB together, to a CSV. For more, use "
                "`product-vqa predict --images`."
            )
            files = gr.File(label="images", file_count="multiple", elem_id="files")
            files.preprocess = list_uploads  # type: ignore[method-assign, assignment]  # reads nothing yet
            names = gr.Dropdown(choices, value=[texts.first], label="attributes", multiselect=True)
            many = gr.Button("Extract to CSV", variant="primary")
            link = gr.Markdown(sanitize_html=False, elem_id="csv")
            rows = gr.Dataframe(
                headers=header(has_shown=has_shown), interactive=False, label="answers", wrap=True, max_height=400
            )
        read_one = one.click(read, [image, entity], [ranking], api_name="read")
        read_one.success(locate, [image, entity], [where], api_visibility="private")
        every.click(read_all, [image], [table], api_name="read_all")
        table.select(locate_row, [image], [where], api_visibility="private")
        image.change(lambda: (None, "", None), None, [ranking, where, table], api_visibility="private")
        many.click(read_files, [files, names], [rows, link], api_name="read_files")
    return page


def region_html(jpeg: bytes, entity_name: str, answer: str) -> str:
    """The image with the region that an answer was read from, as HTML; nothing of it is on disk."""
    text = html.escape(f"{entity_name.replace('_', ' ')}: {answer}")
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return (
        f'<figure style="margin: 0"><img src="{source}" alt="where the answer was read" '
        'style="max-width: 100%; max-height: 360px">'
        f"<figcaption>Where <b>{text}</b> was read: the answer depends most on the bright part. That does not say "
        "that it is right.</figcaption></figure>"
    )


def csv_link(text: str) -> str:
    """A link to save a CSV, which is in the link itself."""
    source = f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
    return f'<a href="{source}" download="answers.csv">Save answers.csv</a>'


@dataclass(frozen=True)
class PageTexts:
    """What the page says about a schema."""

    subject: str
    note: str
    first: str  # the attribute that is chosen at first
    count: str


def describe_page(schema: Schema) -> PageTexts:
    """The texts of a page with these attributes."""
    names = schema.names
    silent = [name.replace("_", " ") for name in schema.not_shown]
    if len(silent) == len(names):
        note = "It says so if the image does not show the attribute; check the confidence."
    elif silent:
        some = join_names(silent, "or") if len(silent) <= MAX_NAMES else f"one of {len(silent)} attributes"
        note = (
            f"It says so if the image does not show {escape(some)}. About every other attribute it gives an answer "
            "even if the image does not show it, so check the confidence."
        )
    else:
        note = "It gives an answer even if the image does not show the attribute, so check the confidence."
    if is_challenge(schema):
        return PageTexts("weights, dimensions and ratings", note, "item_weight", "eight")
    shown = [name.replace("_", " ") for name in names[:MAX_NAMES]]
    subject = join_names(shown if len(names) <= MAX_NAMES else [*shown, "more"], "and")
    return PageTexts(subject, note, names[0], str(len(names)))


def join_names(names: Sequence[str], word: str) -> str:
    """`size, colour and brand`."""
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def as_text(prediction: str, attribute: Attribute) -> str:
    """`500.0 gram`; or "not shown", if that is a possible answer; or "no answer" for one that is not valid."""
    return prediction or ("not shown" if attribute.not_shown else "no answer")


def escape(text: str) -> str:
    """The text as Markdown that shows it unchanged."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>()#+-.!|" else char for char in text)


if __name__ == "__main__":
    run(main)
