"""An image store, filled from links: in parallel, each link once, whatever came of it recorded."""

import logging
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from dataset_builder.fetching import Fetcher, FetchError
from dataset_builder.image_store import ImageStore, count_reasons
from dataset_builder.options import FetchOptions
from dataset_builder.pictures import PictureError, check_picture
from dataset_builder.pool import map_unordered
from product_vqa.command import InputError

logger = logging.getLogger(__name__)


def fill(store: ImageStore, links: Collection[str], options: FetchOptions) -> Counter[str]:
    """Fetch what the store lacks of `links`, log the outcome, and return the reasons with their counts.

    A link that failed in an earlier run is left alone unless `options.retry_failed`.
    """

    def obtain(link: str) -> dict[str, str | int]:
        try:
            data = fetcher.fetch(link)
            check_picture(data)
        except (FetchError, PictureError) as error:
            return {"link": link, "failure": str(error)}
        return {"link": link, "sha256": store.save(data), "num_bytes": len(data)}

    with store.filling():
        pending = store.pending(links, retry_failed=options.retry_failed)
        with (
            ThreadPoolExecutor(options.connections) as pool,
            Fetcher(connections=options.connections, allow_private_hosts=options.allow_private_hosts) as fetcher,
            tqdm(total=len(links), initial=len(links) - len(pending), desc="Pictures", unit=" links") as progress,
        ):
            try:
                for outcome in map_unordered(pool, obtain, pending, in_flight=4 * options.connections):
                    store.record(**outcome)
                    progress.update()
            except OSError as error:
                raise InputError(
                    f"--image_store {store.folder}: cannot be written ({error.strerror}); free some space there and "
                    "start again: what is fetched is kept"
                ) from error
        failures_file = store.write_failures()
        reasons = count_reasons(store.failures(links).values())
    logger.info("%s of %s links have a picture in %s", len(links) - reasons.total(), len(links), store.folder)
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        logger.info("%s failed (%s): see %s; --retry_failed tries them again", reasons.total(), counts, failures_file)
    return reasons
