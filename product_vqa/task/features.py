"""The columns of the dataset: the contract between the stages."""

from datasets import Features, Image, Value

FEATURES = Features(
    {
        "index": Value("int64"),  # from the CSV; if train.csv has none, the row number from 0
        "image": Image(),  # null if the image of a test row could not be downloaded
        "image_link": Value("string"),
        "group_id": Value("string"),
        "entity_name": Value("string"),
        "entity_value": Value("string"),  # canonical, "500.0 gram"; "" in test
        "entity_value_raw": Value("string"),  # as in the CSV; "" in test
    }
)
