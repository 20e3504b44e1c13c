"""A server in this process, with a real adapter, and requests to it."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from inference.request_batches import RequestBatches
from inference.request_bodies import BodyReader
from inference.server_metrics import ServerMetrics
from inference.serving_app import ServingApp
from inference.serving_connections import bind, make_server
from inference.shared_readers import SharedReaders

# One for all requests: a client reads the certificates of all authorities, which takes longer than a request.
HTTP = httpx.Client(timeout=120)


@dataclass
class RunningServer:
    url: str
    port: int
    batches: RequestBatches

    def read(self, image: bytes, entity_name: str, **fields: str) -> httpx.Response:
        return HTTP.post(
            f"{self.url}/read", files={"image": ("a.png", image)}, data={"entity_name": entity_name, **fields},
        )  # fmt: skip

    def chat(self, image: bytes | str, text: str, **options: Any) -> httpx.Response:
        return HTTP.post(f"{self.url}/v1/chat/completions", json=chat_body(image, text, **options))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def chat_body(image: bytes | str, text: str, **options: Any) -> dict[str, Any]:
    url = image if isinstance(image, str) else f"data:image/png;base64,{base64.b64encode(image).decode()}"
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": parts}], **options}


@contextmanager
def running_server(
    readers: SharedReaders, *, batch_size: int = 4, max_questions: int = 128, body_timeout_s: float = 30.0,
    is_loopback: bool = True,
) -> Iterator[RunningServer]:  # fmt: skip
    metrics = ServerMetrics()
    batches = RequestBatches(readers, batch_size=batch_size, max_questions=max_questions, metrics=metrics)
    app = ServingApp(
        batches, metrics=metrics, is_loopback=is_loopback, bodies=BodyReader(timeout_s=body_timeout_s)
    ).app()
    listener = bind("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    server = make_server(app)
    thread = threading.Thread(target=server.serve_until_stopped, args=(listener,), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield RunningServer(f"http://127.0.0.1:{port}", port, batches)
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        batches.close()
