"""Fixtures of several rooms: a Hub, a server of images, tiny base models, a tiny dataset, the challenge's files."""

import gc
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from local_hub import LocalHub
    from tests.dataset_builder.image_server import ImageServer


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# The clients read these when they are imported, before any fixture runs. Each test process has a Hub and a cache of
# its own: nothing leaves the machine, and nothing of the user's is read or written.
_PORT = _free_port()
os.environ.update(
    HF_ENDPOINT=f"http://127.0.0.1:{_PORT}",
    HF_TOKEN=f"hf_{secrets.token_urlsafe(24)}",
    HF_HOME=tempfile.mkdtemp(prefix="product-vqa-tests-"),
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
)

ROOT = Path(__file__).parents[1]

# What is imported and collected, 1.3 million objects, lives until the end. Each search for garbage among them takes a
# second, and each training and prediction ends with one (`process_group`).
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# An example may take its time on a busy machine; pytest's timeout ends one that hangs. `make fuzz` has more of them.
settings.register_profile("no deadline", settings.default, deadline=None, max_examples=50)
settings.load_profile("no deadline")


@pytest.fixture
def server() -> Iterator["ImageServer"]:
    from tests.dataset_builder.image_server import ImageServer

    server = ImageServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", "req", "-x509", *kind, *names], check=True, capture_output=True)
    return files


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator["LocalHub"]:
    """The Hub that HF_ENDPOINT names, with a second account that may only read."""
    from local_hub import LocalHub

    server = LocalHub(
        tmp_path_factory.mktemp("hub"),
        port=_PORT,
        token=os.environ["HF_TOKEN"],
        reader_token=f"hf_{secrets.token_urlsafe(24)}",
    )
    with server:
        yield server


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the challenge's CSVs and some of its images, which have no licence and so are not in the repo."""
    folder = Path(os.environ.get("PRODUCT_VQA_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "train.csv.gz").is_file():
        pytest.skip("the challenge's files are not here (PRODUCT_VQA_DATA names their folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import save_tiny_base

    return save_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-base")


@pytest.fixture(scope="session")
def tiny_paligemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import save_tiny_paligemma2

    return save_tiny_paligemma2(tmp_path_factory.mktemp("bases") / "tiny-paligemma2")


@pytest.fixture(scope="session")
def real_paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_with_real_tokenizer(tmp_path_factory.mktemp("bases") / "real-paligemma", "gemma")


@pytest.fixture(scope="session")
def real_paligemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_with_real_tokenizer(tmp_path_factory.mktemp("bases") / "real-paligemma2", "gemma2")


def save_with_real_tokenizer(folder: Path, family: str) -> Path:
    """A tiny base model with the real tokenizer of a family; skips the test if that was not fetched."""
    from benchmarks.real_tokenizer import find_tokenizer, missing_reason
    from tests.tiny import save_real_tokenizer_base

    if find_tokenizer(family) is None:
        pytest.skip(missing_reason(family))
    return save_real_tokenizer_base(folder, family)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import save_dataset

    return save_dataset(tmp_path_factory.mktemp("datasets") / "tiny-dataset")


@pytest.fixture(scope="session")
def tiny_repos(hub: "LocalHub", tiny_base: Path, tiny_dataset: Path) -> tuple[str, str]:
    """The tiny base model and dataset as repos on the Hub: (repo id of the model, of the dataset)."""
    from huggingface_hub import HfApi

    api = HfApi()
    for repo_id, folder, repo_type in (
        ("local/tiny-base", tiny_base, "model"),
        ("local/tiny-dataset", tiny_dataset, "dataset"),
    ):
        api.create_repo(repo_id, repo_type=repo_type, private=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=repo_type)
    card = b"---\nlicense: gemma\n---\n# A tiny base model\n"
    api.upload_file(repo_id="local/tiny-base", path_in_repo="README.md", path_or_fileobj=card)
    return "local/tiny-base", "local/tiny-dataset"
