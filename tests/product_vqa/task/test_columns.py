from product_vqa.task.columns import SPLITS, TEST_COLUMNS, TRAIN_COLUMNS
from product_vqa.task.features import FEATURES


def test_the_splits_are_those_of_the_contract() -> None:
    assert SPLITS == ("train", "validation", "test")


def test_the_columns_of_the_csvs_are_columns_of_the_dataset() -> None:
    assert set(TRAIN_COLUMNS) - {"index"} < set(FEATURES) and "entity_value" in TRAIN_COLUMNS
    assert set(TEST_COLUMNS) < set(FEATURES) and "entity_value" not in TEST_COLUMNS
