"""Predict a value for every row of a split: adapter + dataset -> submission.csv, and submission.parquet with details.

    accelerate launch -m inference.predict --adapter user/adapter --dataset user/dataset --split test \\
        --output submission.csv

The path of a row: `dataloader` makes batches of the split, `AttributeReader` answers them, `predictions` turns the
answers into rows, `batch_files` keeps each batch until all are done, and `submission` writes the files. Any number of
processes share the batches, or of workers with --engine ray. After an interruption, only the missing batches are
computed, and with --push_to_hub only the missing shards.
"""

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.catalogue_options import CatalogueOptions
from inference.predict_options import PredictOptions
from product_vqa.cli import parse_options, run
from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError, argument
from product_vqa.rank import is_first_process, num_processes
from product_vqa.row_selection import RowSelectionOptions, read_selection
from product_vqa.sharding import MergeOptions, Shard

if TYPE_CHECKING:
    import pyarrow as pa
    from accelerate import PartialState

    from inference.batch_files import BatchFiles
    from inference.batch_predictor import Settings
    from inference.sources import Sources

logger = logging.getLogger(__name__)


def main() -> None:
    options, catalogue, row_options, shard_options, engine = parse_options(
        PredictOptions, CatalogueOptions, RowSelectionOptions, MergeOptions, EngineOptions,
        description="Predict the attribute that each row of a split asks for, or those of images of your own.",
    )  # fmt: skip
    if catalogue.is_given:
        from inference.catalogue import predict_images

        catalogue.check_others(options, row_options, shard_options, engine)
        predict_images(catalogue, options, row_options.entity_names)
        return
    if options.dataset is None:
        raise InputError("the following arguments are required: --dataset (or --images, or --table)")

    from inference.batch_files import BatchFiles, check_output
    from inference.prediction_shards import open_predictions_repo, shard_file
    from inference.sources import find_sources
    from inference.submission import PREDICTIONS
    from product_vqa.atomic_io import one_writer

    with argument("output"):
        output = check_output(options.output)
    if options.reader == "ocr":
        predict_without_model(options, row_options, shard_options, engine, output=output)
        return
    if shard_options.shard is not None and options.batch_size is None:
        raise InputError("--shard needs --batch_size, the same for all shards: other batches would be other shards")
    if options.push_to_hub and shard_options.shard is None and shard_options.merge is None:
        raise InputError("--push_to_hub is for --shard and --merge; for all predictions at once use --shard 1/1")
    if engine.is_ray:
        check_ray_options(options, shard_options)
    if shard_options.merge is not None:
        if is_first_process():
            with one_writer(output, argument="output"):
                merge(options, row_options, output=output, count=shard_options.merge)
        return
    shard = shard_options.chosen
    with argument("output"):
        written = output if shard is None else shard_file(output, shard)
        files = BatchFiles(written.with_suffix(".parts"), schema=PREDICTIONS)
    if options.push_to_hub and is_first_process():
        assert options.hub_predictions_id is not None
        options.hub_predictions_id = open_predictions_repo(
            options.hub_predictions_id,
            split=options.split,
            count=shard.count if shard else 1,
            private=options.hub_private_repo,
        )

    from inference.batch_predictor import Settings
    from product_vqa.distributed import init_distributed
    from product_vqa.downloads import download_all

    sources = find_sources(options.dataset, adapter=options.adapter, base_model=options.base_model)
    selection = read_selection(row_options, schema=sources.dataset_schema)
    settings = Settings.of(options, selection)
    if engine.is_ray:
        download_all(base_model=None, dataset=sources.dataset, split=options.split)  # workers download the model
        with one_writer(written, argument="output"):
            predict_on_ray(options, sources, settings, engine, output=output, files=files)
        return
    download_all(base_model=sources.base_model, dataset=sources.dataset, split=options.split)
    state = init_distributed()
    # Of several processes that predict together, the main one holds the output for all.
    with one_writer(written, argument="output") if state.is_main_process else nullcontext():
        predict(options, sources, settings, output=output, shard=shard, files=files, state=state)
    state.wait_for_everyone()
    state.destroy_process_group()


def predict_without_model(
    options: PredictOptions,
    row_options: RowSelectionOptions,
    shards: MergeOptions,
    engine: EngineOptions,
    *,
    output: Path,
) -> None:
    """Predict by OCR and rules."""
    if shards.shard is not None or shards.merge is not None or engine.is_ray or num_processes() > 1:
        raise InputError(
            "--reader ocr uses the cores of one machine: drop --shard, --merge and --engine ray, and run `python -m "
            "inference.predict`"
        )

    from inference.batch_files import BatchFiles
    from inference.ocr_prediction import check_ocr_options, predict_by_ocr
    from inference.submission import PREDICTIONS
    from product_vqa.atomic_io import one_writer

    check_ocr_options(options)
    with argument("output"):
        files = BatchFiles(output.with_suffix(".parts"), schema=PREDICTIONS)
    with one_writer(output, argument="output"):
        predict_by_ocr(options, row_options, output=output, files=files)


def check_ray_options(options: PredictOptions, shards: MergeOptions) -> None:
    """Raise InputError for options that a prediction by Ray does not have, and for one that it needs."""
    if shards.shard is not None or shards.merge is not None:
        raise InputError("--engine ray shares the batches by itself: drop --shard and --merge")
    if options.batch_size is None:
        raise InputError("--engine ray needs --batch_size: the largest batch that fits may differ between workers")
    if num_processes() > 1:
        raise InputError(
            "--engine ray starts the workers: run `python -m inference.predict` instead of several processes"
        )


def predict(
    options: PredictOptions,
    sources: "Sources",
    settings: "Settings",
    *,
    output: Path,
    shard: Shard | None,
    files: "BatchFiles",
    state: "PartialState",
) -> None:
    """Predict the batches of the shard, or all of them, and write what they give."""
    from tqdm import tqdm

    from inference.batch_predictor import agree_on_batch_size, find_indexes, load_reader, load_rows, predict_batches
    from inference.candidate_finder import describe_grounding, find_source, make_finder
    from inference.dataloader import RowBatches, default_workers
    from inference.prediction_shards import is_done, shard_file
    from product_vqa.modeling.reader_loading import find_calibration

    with state.main_process_first():  # it downloads, and writes the Arrow files; the others find them
        dataset = load_rows(sources.dataset, settings)
        sources.check_schema(dataset)
        source = find_source(
            settings.ground, calibration=find_calibration(sources.adapter, sources.base_model),
            constrain=settings.constrain, dataset=sources.dataset, split=settings.split, rows=dataset,
            warns=state.is_main_process,
        )  # fmt: skip
    reader = load_reader(sources, settings, device=state.device)
    assert reader.base_model is not None
    batch_size = agree_on_batch_size(options.batch_size, files=files, reader=reader, state=state)
    batches = RowBatches(
        dataset, processor=reader.processor, batch_size=batch_size, schema=reader.schema,
        finder=make_finder(source, reader),
    )  # fmt: skip
    indexes = find_indexes(dataset, batch_size=batch_size, location=sources.dataset, split=options.split)
    this_run = settings.describe(
        dataset=sources.dataset, base_model=reader.base_model, rows=len(dataset), batch_size=batch_size,
        provenance=reader.provenance | describe_grounding(source, reader.calibration),
    )  # fmt: skip
    if shard is not None and is_done(shard_file(output, shard), shard=shard, run=this_run | sources.describe()):
        if state.is_main_process:
            print(f"unchanged: {shard_file(output, shard)}")
            push_if_asked(shard, options, output=output, run=this_run | sources.describe())
        return
    if shard is not None and is_pushed(shard, options, run=this_run | sources.describe(), state=state):
        if state.is_main_process:
            print(f"unchanged: shard {shard} of {options.hub_predictions_id}")
        return
    with state.main_process_first():  # it records the run, with which the others compare theirs
        files.open(this_run)

    numbers = [number for number in range(len(batches)) if shard is None or shard.owns(number)]
    own = numbers[state.process_index :: state.num_processes]  # of this process
    missing = [number for number in own if not files.has(number, indexes[number])]
    num_workers = options.dataloader_num_workers
    if num_workers is None:
        is_reading = source is not None and source.engine is not None  # with all cores, which workers would share
        num_workers = 0 if is_reading else default_workers(state.device, num_processes=state.num_processes)
    tables = predict_batches(reader, batches, missing, num_workers=num_workers, min_confidence=options.min_confidence)
    for number, table in tqdm(tables, total=len(missing), desc="batches", disable=not state.is_main_process):
        files.save(number, table)

    state.wait_for_everyone()
    if state.is_main_process:
        table = files.load({number: indexes[number] for number in numbers})
        if shard is None:
            finish(table, output=output, run=this_run)
        else:
            finish_shard(table, shard, options, output=output, run=this_run | sources.describe())
        files.remove()
        warn_of_not_finite(table, run=this_run)


def predict_on_ray(
    options: PredictOptions,
    sources: "Sources",
    settings: "Settings",
    engine: EngineOptions,
    *,
    output: Path,
    files: "BatchFiles",
) -> None:
    """Have Ray's workers predict the batches, and write what they give."""
    from tqdm import tqdm

    from inference.batch_predictor import find_indexes, load_rows
    from inference.candidate_finder import describe_grounding, find_source
    from inference.ray_prediction import PredictionWork, count_workers, find_dtype, predict_on_cluster
    from product_vqa.modeling.reader_loading import describe_reader, find_calibration
    from product_vqa.ray_cluster import connect

    assert options.batch_size is not None
    dataset = load_rows(sources.dataset, settings)
    sources.check_schema(dataset)
    indexes = find_indexes(dataset, batch_size=options.batch_size, location=sources.dataset, split=options.split)
    calibration = find_calibration(sources.adapter, sources.base_model)
    source = find_source(
        settings.ground, calibration=calibration, constrain=settings.constrain, dataset=sources.dataset,
        split=settings.split, rows=dataset,
    )  # fmt: skip
    settings = replace(settings, ground="none" if source is None else "ocr")
    with connect(engine) as cluster:
        settings = replace(settings, dtype=find_dtype(cluster, sources, settings))
        provenance = describe_reader(
            sources.adapter, sources.base_model, dtype=f"torch.{settings.dtype}", load_in_4bit=options.load_in_4bit,
            schema=sources.schema,
        )  # fmt: skip
        this_run = settings.describe(
            dataset=sources.dataset, base_model=sources.base_model, rows=len(dataset), batch_size=options.batch_size,
            provenance=provenance | describe_grounding(source, calibration),
        )  # fmt: skip
        files.open(this_run)
        missing = [number for number in range(len(indexes)) if not files.has(number, indexes[number])]
        workers = count_workers(cluster, engine)
        work = PredictionWork.of(
            sources, cluster, workers=workers, settings=settings, batch_size=options.batch_size,
            num_workers=options.dataloader_num_workers,
        )  # fmt: skip
        with tqdm(total=len(missing), desc="batches") as progress:
            for number, table in predict_on_cluster(cluster, work, missing, indexes, workers=workers):
                files.save(number, table)
                progress.update()
    table = files.load(dict(enumerate(indexes)))
    finish(table, output=output, run=this_run)
    files.remove()
    warn_of_not_finite(table, run=this_run)


def finish(table: "pa.Table", *, output: Path, run: dict[str, Any]) -> None:
    """Write the submission, and print what is in it."""
    from inference.submission import summarize, write_submission

    write_submission(table, output, run=run)
    print(f"{output}: {summarize(table)}")


def warn_of_not_finite(table: "pa.Table", *, run: dict[str, Any]) -> None:
    from inference.predictions import count_not_finite
    from product_vqa.modeling.generation import not_finite_remedy

    if num_not_finite := count_not_finite(table):
        logger.warning(
            "%d of these rows are empty because the model's logits were not finite. %s",
            num_not_finite,
            not_finite_remedy(run["dtype"]),
        )


def finish_shard(
    table: "pa.Table", shard: Shard, options: PredictOptions, *, output: Path, run: dict[str, Any]
) -> None:
    """Write the file of a shard, and push it if asked for."""
    from inference.prediction_shards import shard_file, write_shard
    from inference.submission import summarize

    file = shard_file(output, shard)
    write_shard(table, file, shard=shard, run=run)
    print(f"{file}: {summarize(table)}")
    push_if_asked(shard, options, output=output, run=run)


def is_pushed(shard: Shard, options: PredictOptions, *, run: dict[str, Any], state: "PartialState") -> bool:
    """Whether the repo has this shard of this run. The first process asks for all of them."""
    from accelerate.utils import broadcast_object_list

    from inference.prediction_shards import has_shard

    if not options.push_to_hub:
        return False
    assert options.hub_predictions_id is not None
    found = state.is_main_process and has_shard(options.hub_predictions_id, split=options.split, shard=shard, run=run)
    (agreed,) = broadcast_object_list([found])
    return bool(agreed)


def push_if_asked(shard: Shard, options: PredictOptions, *, output: Path, run: dict[str, Any]) -> None:
    """Push the file of a shard."""
    from inference.prediction_shards import push_shard, shard_file

    if options.push_to_hub:
        assert options.hub_predictions_id is not None
        file = shard_file(output, shard)
        commit = push_shard(file, options.hub_predictions_id, split=options.split, shard=shard, run=run)
        print(f"pushed: {commit.commit_url}")


def merge(options: PredictOptions, row_options: RowSelectionOptions, *, output: Path, count: int) -> None:
    """Merge the predictions of all shards, from the Hub or from the folder of `output`."""
    from inference.prediction_shards import download_shards, find_shards, merge_shards
    from inference.sources import find_sources
    from inference.submission import RECORDED

    if options.push_to_hub:
        assert options.hub_predictions_id is not None
        with argument("hub_predictions_id"):
            files = download_shards(options.hub_predictions_id, split=options.split, count=count)
    else:
        with argument("output"):
            files = find_shards(output, count)
    sources = find_sources(options.dataset, adapter=options.adapter, base_model=options.base_model)
    selection = read_selection(row_options, schema=sources.dataset_schema)
    expected: dict[str, Any] = {name: getattr(options, name) for name in RECORDED}
    expected |= sources.describe()
    if options.ground is not None:
        expected["ground"] = "ocr" if options.ground == "ocr" else None
    expected["row_selection"] = None if selection.is_all else selection.describe()
    if options.batch_size is not None:
        expected["batch_size"] = options.batch_size
    with argument("merge"):
        table, run = merge_shards(files, expected=expected)
    finish(table, output=output, run=run)


if __name__ == "__main__":
    run(main)
