"""Errors in the words of the command line."""

import re
from pathlib import Path

from scrcl.utils.errors import ScrclError

#: Stands for the file in what is being translated.
FILE = "\0"
#: What the package says to users of Python, and what it is to users of the command line; tried in this order.
WORDS = (
    (
        r"Remove them first: `scanpy\.pp\.filter_cells[^`]*`",
        "Remove them from the file first; of what 10x writes, take the filtered matrix, not the raw one",
    ),
    (
        r"(?s)(cannot be read from cell [\d,]+ on): .*\. The file is damaged or gone; restore it\.",
        r"\1: the file is damaged.",
    ),
    (
        r"n_(spatial_)?neighbors=\d+ needs at least ([\d,]+) cells( in each slice)?, but (.*?)\. (Pass|Take) .*",
        r"At least \2 cells\3 are needed, but \4.",
    ),
    (r"See `get_cluster_probabilities\(\)` .*", "`--report` tells how certain each cluster is, and of other numbers."),
    (r"Take a smaller `n_components`.*", "Take fewer cells."),
    (r" Use method='(\w+)'", r" Use `--method \1`"),
    # A snippet of Python that tells how to do what has just been said.
    (r": `(?:adata|mdata|muon|numpy|np|scanpy|squidpy|SCRCL|scrcl)\b[^`]*`", ""),
    (r"\badata\.(X|layers|obs|obsm|obsp|uns|var|var_names|obs_names)\b(\[[^\]]*\])?", r"\1\2 of {file}"),
    (r"\bmdata\[('[^']*')\]", r"the modality \1"),
    (r"\bmdata\.mod\b", "{file}"),
    (r"(?<![\w./\\-])[am]data\b(?![\\/-]|\.\w)", "{file}"),
    (r"\bmax_epochs\b", "--epochs"),
    (r"\bdir_path=", ""),
    (
        r"(?<![-\w\[])(layers?|n_clusters|batch_size|spatial_key|sample_key|batch_key|labels_key|unlabeled_category|modalities)(?==|`)",
        r"--\1",
    ),
)


class UserError(Exception):
    """Something that the user can mend; shown as it is."""


def in_options(error: BaseException, source: Path | None = None) -> str:
    """Tell an error, in the words of the options.

    Parameters
    ----------
    error
        What was raised.
    source
        The file that was read.
    """
    if isinstance(error, ScrclError):
        return error.as_command(str(source or "the data"))
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, UserError):
        return message
    if isinstance(error, MemoryError) or "out of memory" in message:
        return "There is not enough memory. Take a smaller `--batch-size`, `--device cpu`, or fewer cells."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename is not None else f"{error.strerror}."
    if not isinstance(error, ValueError | KeyError | TypeError | OSError) or not message:
        return f"This should not happen: {type(error).__name__}: {message}. Please report it, with the command."
    return translate(message, source)


def translate(message: str, source: Path | None) -> str:
    """Put what the package says to users of Python into the words of the options."""
    for pattern, words in WORDS:
        message = re.sub(pattern, words.replace("{file}", FILE), message)
    message = re.sub(r"--[a-z_]+", lambda option: option[0].replace("_", "-"), message)
    # Last, so that no name of a file is translated.
    return message.replace(FILE, str(source or "the data"))
