"""The columns that the CSVs need, and the splits of the dataset. Without `datasets`, which takes long to import."""

TRAIN_COLUMNS = ("image_link", "group_id", "entity_name", "entity_value")
TEST_COLUMNS = ("index", "image_link", "group_id", "entity_name")
SPLITS = ("train", "validation", "test")
