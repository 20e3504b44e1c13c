"""A Hub on loopback: the unmodified Hugging Face clients push to it and pull from it, without internet access.

    python -m local_hub --root folder --port 8765

In a script or a test, use `with LocalHub("folder") as hub:` and start the client with `hub.environment`.
"""

from local_hub.process import LocalHub

__all__ = ["LocalHub"]
