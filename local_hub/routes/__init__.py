"""The HTTP endpoints, by what they act on. `local_hub.app` says which URL leads to which of them."""
