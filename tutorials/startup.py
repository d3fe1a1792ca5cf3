"""What the tutorials are executed with: warnings without paths of this machine, and no announcements of Lightning."""

import logging
import warnings

import lightning.pytorch  # noqa: F401 - sets both when it is imported

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}\n"
