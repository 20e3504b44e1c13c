"""A build by Ray's workers: each downloads the URLs of some shards, and puts the shards where the command finds them.

What a worker writes is what `--shard` writes, so that the dataset is that of one machine.
"""

import fcntl
import json
import logging
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dataset_builder.build_shards import Inputs, write_shard
from dataset_builder.downloader import download
from dataset_builder.image_store import ImageStore
from dataset_builder.options import BuildOptions, BuildSourceOptions, FetchOptions
from dataset_builder.shard_images import ShardError, ShardImages, open_shards
from dataset_builder.shard_targets import Collected, FolderTarget, HubTarget, ShardTarget, UrlTarget
from product_vqa.errors import InputError
from product_vqa.ray_cluster import connect
from product_vqa.sharding import MAX_SHARDS, Shard, all_shards

logger = logging.getLogger(__name__)

URLS_PER_SHARD = 1000  # what a lost worker has to download again
MAX_SHARDS_ON_HUB = 100  # each is a commit, of which the Hub takes about a hundred per hour
_SCRATCH = "product-vqa-shard-"


@dataclass(frozen=True)
class ShardWork:
    """What a worker does: a shard that the target lacks."""

    target: ShardTarget
    count: int
    inputs: Inputs
    fetch_options: FetchOptions  # of one worker
    cores: int

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        return self._build

    def _build(self, item: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
        """Give the number of the shard, and as JSON how many URLs failed for which reason."""
        shard = Shard(item["number"], self.count)
        reasons: Counter[str] = Counter()
        try:
            # It is there if a machine was lost after it had put the shard.
            if not self.target.find([shard], inputs=self.inputs):
                with scratch_folder() as folder:
                    store = ImageStore(folder / "images", image_size=self.inputs.image_size)
                    reasons = download(store, item["urls"], self.fetch_options, cores=self.cores)
                    write_shard(folder / "shard", store, item["urls"], shard=shard, inputs=self.inputs)
                    self.target.put(folder / "shard", shard=shard)
        except InputError as error:
            raise InputError(f"{error} (shard {shard}, on {platform.node()})") from error
        yield shard.number, json.dumps(reasons).encode()


def find_target(folder: Path, source: BuildSourceOptions, options: BuildOptions, *, location: str) -> ShardTarget:
    """Where the shards of a build to `folder` meet. `location` is the dataset repo, if there is one."""
    if source.shards_url is not None:
        return UrlTarget(source.shards_url.rstrip("/"), downloads=folder.with_name(f".{folder.name}.shards"))
    return HubTarget(location, options.hub_private_repo) if options.push_to_hub else FolderTarget(folder)


def count_shards(source: BuildSourceOptions, target: ShardTarget, *, num_urls: int) -> int:
    """The number of shards: it depends on the command and its inputs only, so that a rerun finds them."""
    most = MAX_SHARDS_ON_HUB if isinstance(target, HubTarget) else MAX_SHARDS
    return source.ray_shards or min(most, max(1, -(-num_urls // URLS_PER_SHARD)))


def build_shards(
    source: BuildSourceOptions,
    target: ShardTarget,
    urls: Sequence[str],
    *,
    count: int,
    inputs: Inputs,
    fetch_options: FetchOptions,
) -> None:
    """Have workers make those shards that the target lacks. The workers share the rate of `fetch_options`."""
    target.prepare()
    shards = all_shards(count)
    done = target.find(shards, inputs=inputs)
    own: dict[int, list[str]] = {shard.number: [] for shard in shards if shard not in done}
    for url in urls:
        number = Shard.of_url(url, count).number
        if number in own:
            own[number].append(url)
    if not own:
        return
    reasons: Counter[str] = Counter()
    with connect(source) as cluster:
        workers = min(source.ray_workers or cluster.cpus, len(own))
        work = ShardWork(
            target, count, inputs, fetch_options.of_one_shard(workers), cores=max(1, cluster.cpus // workers)
        )
        items = [{"number": number, "urls": of_shard} for number, of_shard in own.items()]
        with tqdm(total=count, initial=count - len(own), desc="Shards", unit=" shards") as progress:
            for _, content, _ in cluster.run(work, items, workers=workers):
                reasons.update(json.loads(content))
                progress.update()
    if reasons:
        listed = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
        logger.info("%s URLs have no image (%s): see left_out.csv", reasons.total(), listed)


def collect_shards(
    target: ShardTarget, urls: Sequence[str], *, count: int, inputs: Inputs
) -> tuple[ShardImages, Callable[[], None]]:
    """The images of all shards, and what removes these from the target.

    Raises InputError for a damaged shard, which is then removed, so that a rerun makes it again.
    """
    collected: Collected = target.collect(count, inputs=inputs)
    try:
        return open_shards(collected.folder, urls, count=count, inputs=inputs, where=target.name), collected.remove
    except ShardError as error:
        target.discard(error.shard)
        raise InputError(f"{target.name}: {error}: it was removed; rerun the same command") from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on this machine's disk (TMPDIR), removed at the end, with those of workers that were killed."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):  # of another user, or in use
            descriptor = _open_folder(leftover)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover)
            finally:
                os.close(descriptor)
    folder, descriptor = _make_locked()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked() -> tuple[Path, int]:
    """A new folder, and its descriptor with a lock that ends with the process: a leftover of a kill is not locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        with suppress(FileNotFoundError):
            descriptor = _open_folder(folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)  # another worker took it for a leftover before it was locked


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
