"""All targets by name. A module is imported with its first target: some need torch, most do not."""

from importlib import import_module

from tests.fuzz.target import Target

# Module -> its targets, and the number of cases of each in a full run.
_MODULES: dict[str, dict[str, int]] = {  # the slowest first, so that both processes end at about the same time
    "metadata": {
        "parquet": 20_000, "adapter_config": 25_000, "card_configs": 25_000, "task_file": 50_000,
        "calibration": 50_000, "vote_weights": 20_000,
    },
    "shards": {
        "shard_manifest": 20_000, "shard_states": 20_000, "shard_images": 20_000, "prediction_shard": 25_000,
    },
    "states": {"run_state": 20_000, "lease": 50_000},
    "tables": {"written_submission": 20_000, "submission": 20_000, "train_csv": 60_000, "test_csv": 30_000},
    "cards": {"card_merge": 25_000, "hub_card": 50_000},
    "hub": {"hub_route": 40_000, "hub_body": 40_000, "hub_commit": 25_000},
    "images": {
        "image_tiff": 25_000, "image_any": 25_000, "image_jpeg": 25_000, "image_png": 25_000, "image_webp": 25_000,
        "image_gif": 25_000, "image_bmp": 25_000, "image_avif": 25_000,
    },
    "answers": {"server_answer": 30_000, "redirect": 20_000},
    "documents": {"json": 100_000, "yaml": 50_000, "front_matter": 50_000},
    "schemas": {"schema": 50_000, "pattern": 100_000},
    "quantities": {"quantity": 600_000, "label": 400_000, "index": 300_000, "prediction": 300_000},
}  # fmt: skip
_MODULE_OF = {name: module for module, targets in _MODULES.items() for name in targets}
CASES = {name: cases for targets in _MODULES.values() for name, cases in targets.items()}
NAMES = list(CASES)


def load_target(name: str) -> Target:
    module = import_module(f"tests.fuzz.{_MODULE_OF.get(name, 'broken')}")
    (target,) = [target for target in module.TARGETS if target.name == name]
    return target
