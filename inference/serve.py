"""Serve adapters over HTTP: `POST /read` for an image and an attribute, and OpenAI's chat form.

    python -m inference.serve --adapter user/adapter --port 8000
    python -m inference.serve --adapter user/adapter --adapter user/other --port 8000

Questions of many clients are answered in batches. One adapter answers as `inference.predict` does; several share one
base model. SIGTERM lets the server answer what it has accepted, and end with exit code 0.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError


class _Collect(argparse.Action):
    """`--adapter A --adapter B` is `--adapter A B`; on the command line, it replaces the list of a `--config` file."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if given is self.default else given), *(values or [])])


@dataclass
class ServeOptions:
    """The models that answer, the address, and the limits."""

    adapter: list[str] | None = field(
        default=None,
        metadata={
            "help": "Adapter: a repo (user/name[@revision]) or a folder. Given several times: adapters of one base "
            "model. Without one, --base_model alone answers, such as an exported model.",
            "action": _Collect,
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0: every address of this machine."}
    )
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0: any free port."})
    batch_size: int | None = field(
        default=None, metadata={"help": "Questions per batch at most; default: what fits on the GPU, or 32 on a CPU."}
    )
    max_questions: int | None = field(
        default=None,
        metadata={
            "help": "Questions that are decoded, waiting or being answered; beyond them, status 503. Default: four "
            "batches, but at least 128."
        },
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "As in inference.predict."}
    )
    load_in_4bit: bool | None = field(
        default=None, metadata={"help": "As in inference.predict.", "nargs": "?", "const": True}
    )
    num_beams: int = field(default=1, metadata={"help": "Number of beams; the other beams are alternatives."})

    def __post_init__(self) -> None:
        if not self.adapter and not self.base_model:
            raise InputError("--adapter or --base_model is needed: user/name, or a folder")
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port must be 0 to 65535, got {self.port}")
        for name in ("batch_size", "max_questions"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}")
        if not 1 <= self.num_beams <= 8:
            raise InputError(f"--num_beams must be 1 to 8, got {self.num_beams}")


def main() -> None:
    (options,) = parse_options(ServeOptions, description=__doc__)
    try:
        import python_multipart  # noqa: F401  # optional: the extra `serve`
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError("the server needs Starlette and uvicorn: pip install 'product-vqa[serve]'") from error

    import torch

    from inference.request_batches import RequestBatches
    from inference.server_metrics import ServerMetrics
    from inference.serving_app import ServingApp
    from inference.serving_connections import bind, make_server
    from inference.shared_readers import load_readers

    for name in ("uvicorn.error", "asyncio"):  # their warnings are about what any client can cause
        logging.getLogger(name).setLevel(logging.ERROR)
    listener = bind(options.host, options.port)  # before the model is loaded; it accepts nothing yet
    readers = load_readers(
        options.adapter or [], base_model=options.base_model, dtype=options.dtype,
        load_in_4bit=options.load_in_4bit, num_beams=options.num_beams,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    batch_size = options.batch_size or min(readers.activate(name).find_batch_size() for name in readers.names)
    metrics = ServerMetrics()
    batches = RequestBatches(
        readers, batch_size=batch_size, max_questions=options.max_questions or max(128, 4 * batch_size),
        metrics=metrics,
    )  # fmt: skip
    is_loopback = options.host in ("127.0.0.1", "localhost", "::1")
    app = ServingApp(batches, metrics=metrics, is_loopback=is_loopback).app()
    host, port = listener.getsockname()[:2]
    print(f"Serving {', '.join(readers.names)} in batches of up to {batch_size} at http://{host}:{port}", flush=True)
    make_server(app).serve_until_stopped(listener)
    batches.close()


if __name__ == "__main__":
    run(main)
