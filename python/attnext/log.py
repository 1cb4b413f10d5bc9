"""What does attnext tell about itself? Nothing, unless ATTNEXT_LOG asks for it."""

from __future__ import annotations

import logging
import os

from . import _core

logger = logging.getLogger("attnext")


def configure() -> None:
    """``ATTNEXT_LOG=info`` (or another level) writes to stderr from that level on."""
    level_name = os.environ["ATTNEXT_LOG"]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    level = logging.getLevelName(level_name.upper())
    if isinstance(level, int):
        logger.setLevel(level)
    else:
        logger.warning("ATTNEXT_LOG must be debug, info, warning or error, found %r", level_name)
    logger.info(
        "version %s, %s kernels, %d threads",
        _core.version(), _core.isa(), _core.get_num_threads(),
    )  # fmt: skip
