"""A Hub on loopback: the unmodified Hugging Face clients push to it and pull from it, without internet.

    python -m local_hub --root folder --port 8765

or, in a script or a test, `with LocalHub("folder") as hub:` and `hub.environment` for the client's process.
"""

from local_hub.server import LocalHub

__all__ = ["LocalHub"]
