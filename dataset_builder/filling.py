"""An image store, filled from links or from a folder: in parallel, each link once, whatever came of it recorded."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tqdm.auto import tqdm

from dataset_builder.fetching import Fetched, Fetcher, FetchError
from dataset_builder.image_store import ImageStore, LinkState, Status, count_reasons
from dataset_builder.options import FetchOptions
from dataset_builder.pictures import ImageFolder, Picture, PictureError, prepare_picture
from dataset_builder.pool import map_unordered
from product_vqa.command import InputError

logger = logging.getLogger(__name__)


def fill(store: ImageStore, links: Collection[str], options: FetchOptions) -> Counter[str]:
    """Fetch what the store lacks of `links`, log the outcome, and return the reasons with their counts.

    A link that failed in an earlier run is left alone unless `options.retry_failed` and it could succeed.
    """
    with store.filling():
        pending = store.pending(links, retry_failed=options.retry_failed)
        with (
            ThreadPoolExecutor(options.connections) as pool,
            # Closed before the pool, which waits for its threads: none of them waits for its next attempt then.
            Fetcher(connections=options.connections, allow_private_hosts=options.allow_private_hosts) as fetcher,
        ):
            _store_pictures(
                store, pending, fetcher.fetch, pool=pool, in_flight=4 * options.connections, num_links=len(links)
            )
        failures_file = store.write_failures()
        reasons = count_reasons(store.failures(links).values())
    logger.info("%s of %s links have a picture in %s", len(links) - reasons.total(), len(links), store.folder)
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        logger.info(
            "%s failed (%s): see %s; --retry_failed tries again those that could succeed",
            reasons.total(), counts, failures_file,
        )  # fmt: skip
    return reasons


def fill_from_folder(store: ImageStore, links: Collection[str], folder: ImageFolder) -> None:
    """The same from the files of a folder, on all cores."""
    folder.check_names(links)
    pending = store.pending(links, retry_failed=True)
    num_threads = os.cpu_count() or 1
    with store.filling(), ThreadPoolExecutor(num_threads) as pool:
        _store_pictures(store, pending, folder.read, pool=pool, in_flight=4 * num_threads, num_links=len(links))


def _store_pictures(
    store: ImageStore,
    links: list[str],
    read: Callable[[str], Fetched],
    *,
    pool: ThreadPoolExecutor,
    in_flight: int,
    num_links: int,
) -> None:
    # Decoded pictures are what takes memory and cores: one a core at a time, however many threads fetch.
    preparing = ThreadPoolExecutor(os.cpu_count() or 1)

    def prepare(data: bytes) -> Picture:
        return preparing.submit(prepare_picture, data, image_size=store.image_size).result()

    def obtain(link: str) -> LinkState:
        start = time.monotonic()
        state = _obtain(link, read, prepare, store)
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        return state._replace(seconds=round(time.monotonic() - start, 3), finished_at=finished_at)

    num_failed = 0
    with (
        preparing,
        tqdm(total=num_links, initial=num_links - len(links), desc="Pictures", unit=" links") as progress,
    ):
        try:
            for number, state in enumerate(map_unordered(pool, obtain, links, in_flight=in_flight), start=1):
                store.record(state)
                num_failed += state.status != Status.STORED
                progress.set_postfix_str(f"{num_failed / number:.1%} failed", refresh=False)
                progress.update()
        except OSError as error:
            raise InputError(
                f"--image_store {store.folder}: cannot be written ({error.strerror}); free some space there and "
                "start again: what is fetched is kept"
            ) from error


def _obtain(
    link: str, read: Callable[[str], Fetched], prepare: Callable[[bytes], Picture], store: ImageStore
) -> LinkState:
    http_status, tries = None, 1
    try:
        data, http_status, tries = read(link)
        picture = prepare(data)
    except FetchError as error:
        status = Status.FAILED if error.could_succeed else Status.REFUSED
        return LinkState(link, status, str(error), error.http_status, error.tries)
    except PictureError as error:
        return LinkState(link, Status.REFUSED, str(error), http_status, tries)
    store.save(picture)
    return LinkState(
        link,
        Status.STORED,
        http_status=http_status,
        tries=tries,
        num_bytes=len(picture.data),
        width=picture.width,
        height=picture.height,
        sha256=picture.sha256,
        phash=picture.phash,
    )
