"""A web page that reads attributes off an uploaded photograph; the same file runs as a Space.

    python -m inference.demo --adapter user/adapter
    python -m inference.demo --adapter user/adapter --push_to_hub --space_id user/reader

Its API is Gradio's: `/read` and `/read_all`, for gradio_client and for anyone who can post.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError
from product_vqa.images import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SIDE, ImageError, load_image
from product_vqa.task.schema import ENTITIES

if TYPE_CHECKING:
    import gradio as gr
    from PIL import Image

    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.modeling.generation import Answer

MAX_WAITING = 32  # questions; who comes then is told to come later
# In a Space there is no command line: the options lie beside app.py.
SPACE_OPTIONS = "demo.yaml"


@dataclass
class DemoOptions:
    """Which adapter answers, and where the page is."""

    adapter: str = field(metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder."})
    base_model: str | None = field(
        default=None, metadata={"help": "The base, where it is not the one that the adapter names."}
    )
    load_in_4bit: bool | None = field(
        default=None, metadata={"help": "As in inference.predict.", "nargs": "?", "const": True}
    )
    num_beams: int = field(default=3, metadata={"help": "Hypotheses; all but the best are shown as alternatives."})
    examples: str | None = field(default=None, metadata={"help": "Folder of pictures to choose from."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0: all of this machine's."})
    port: int = field(default=7860, metadata={"help": "Port; 0: any that is free."})
    push_to_hub: bool = field(default=False, metadata={"help": "Make a Space of it instead of serving it here."})
    space_id: str | None = field(default=None, metadata={"help": "The Space: user/name."})
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
        DemoOptions,
        description="A web page that reads attributes off an uploaded photograph.",
        argv=["--config", SPACE_OPTIONS] if len(sys.argv) == 1 and Path(SPACE_OPTIONS).is_file() else None,
    )
    if options.push_to_hub:
        from inference.space import push_space

        print(f"pushed: {push_space(options)}")
        return
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError("the page needs Gradio: pip install 'product-vqa[demo]'") from error

    from product_vqa.modeling.attribute_reader import AttributeReader

    reader = AttributeReader.from_pretrained(
        options.adapter,
        base_model=options.base_model,
        load_in_4bit=options.load_in_4bit,
        num_beams=options.num_beams,
    )
    page = make_page(reader, title=options.adapter, examples=find_examples(options.examples))
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1).launch(
        server_name=options.host,
        server_port=options.port or None,
        max_file_size=MAX_BYTES,
        share=False,
        show_error=True,
        footer_links=["api", "gradio"],
        ssr_mode=False,
        **look(),
    )


def find_examples(folder: str | None) -> list[str]:
    """Pictures of a folder, in the order of their names; none without a folder."""
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    return [str(file) for file in sorted(Path(folder).iterdir()) if file.suffix.lower() in suffixes] if folder else []


def open_picture(file: str | Path) -> "Image.Image":
    """The image of a file. Raises ValueError, in words for the page, for a file that is none or is too large."""
    try:
        with open(file, "rb") as stream:
            return load_image(stream.read(MAX_BYTES + 1))
    except OSError as error:
        raise ValueError("This file is gone: upload it again.") from error
    except ImageError as error:
        reason = str(error).partition(":")[0]
        if reason in ("too_many_bytes", "too_many_pixels", "side_too_long"):
            raise ValueError(
                f"This image is too large: at most {MAX_BYTES // 2**20} MiB, {MAX_PIXELS // 10**6} million pixels and "
                f"{MAX_SIDE:,} pixels a side are read."
            ) from error
        if reason == "not_a_picture":
            raise ValueError(f"This file is no picture that can be opened: {', '.join(FORMATS)} can.") from error
        raise ValueError("This file is no picture that can be opened: it is damaged.") from error


def look() -> dict[str, Any]:
    """Fonts of the reader's own machine: nothing is fetched from anywhere."""
    import gradio as gr

    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return {"theme": gr.themes.Default(font=sans, font_mono=mono)}


def make_page(reader: "AttributeReader", *, title: str, examples: list[str] | None = None) -> "gr.Blocks":
    """The page, not yet served."""
    import gradio as gr

    def open_upload(payload: Any) -> "Image.Image":
        if payload is None or payload.path is None:
            raise gr.Error("Give a picture first.", duration=6, print_exception=False)
        try:
            return open_picture(payload.path)
        except ValueError as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    def read(image: Any, entity_name: str) -> dict[str, float]:
        answer = reader.read(image, entity_name)
        return {as_text(one): one.confidence for one in (answer, *answer.alternatives)}

    def read_all(image: Any) -> list[list[Any]]:
        answers = reader.read_batch([image] * len(ENTITIES), ENTITIES)
        return [
            [name.replace("_", " "), as_text(answer), round(answer.confidence, 3)]
            for name, answer in zip(ENTITIES, answers, strict=True)
        ]

    choices = [(name.replace("_", " "), name) for name in ENTITIES]
    with gr.Blocks(title=f"{title} reads", analytics_enabled=False) as page:
        gr.Markdown(
            f"# What does the pack say?\n{escape(title)} reads product attributes off photographs. Asked about what a "
            "photograph does not show it answers all the same: mind the confidence."
        )
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="photograph", sources=["upload", "clipboard"], height=360)
                # Its own way would not say what is wrong. (For a subclass Gradio writes a file beside this one.)
                image.preprocess = open_upload
                entity = gr.Dropdown(choices, value="item_weight", label="attribute")
                with gr.Row():
                    one = gr.Button("Read", variant="primary")
                    every = gr.Button("Read all eight")
                if examples:
                    gr.Examples([[example] for example in examples], inputs=[image], cache_examples=False)
            with gr.Column():
                ranking = gr.Label(label="answer, and what else it may be", elem_id="answer")
                table = gr.Dataframe(
                    headers=["attribute", "answer", "confidence"], interactive=False, label="all eight", wrap=True
                )
        one.click(read, [image, entity], [ranking], api_name="read")
        every.click(read_all, [image], [table], api_name="read_all")
    return page


def as_text(answer: "Answer") -> str:
    """`500.0 gram`, or words for an answer that is not valid."""
    return answer.prediction or "no answer"


def escape(text: str) -> str:
    """Markdown shows it as it is."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>()#+-.!|" else char for char in text)


if __name__ == "__main__":
    run(main)
