"""Why a file cannot be read, quoted from the library that failed, and what to do about it."""

import shlex
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scrcl.utils.errors import ScrclError

from .errors import UserError

PACKAGE = Path(__file__).parents[1]
UNPACK = "Unpack it, and name the unpacked file."
#: First bytes of files that are not what their names say: what they are, and what to do.
DISGUISES = (
    (b"<", "a web page or an error message of a server", "Download it again."),
    (b"{", "text in JSON", "Name the file that holds the counts."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the file: `git lfs pull`."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: `gzip -dc {path} > {unpacked}`, and name that file."),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ", "compressed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"\x89HDF", "an HDF5 file", "Rename it with its own suffix: .h5ad, .h5mu, or .h5 of 10x."),
    (b"\xd0\xcf\x11\xe0", "an Excel file", "Save it as .csv, and name that file."),
)
#: Words in messages of HDF5, gzip, zarr and anndata, and the remedy.
REMEDIES = (
    (
        ("unable to lock",),
        "Close the program that has it open for writing. If there is none, as on some network drives, switch locks off: "
        "`export HDF5_USE_FILE_LOCKING=FALSE`.",
    ),
    (
        ("required filter", "is not registered", "plugin", "filter is not available"),
        "Install the common plugins of HDF5: `pip install hdf5plugin`.",
    ),
    (("not a gzipped file",), "It is not compressed: remove .gz from its name."),
    (("codec can't decode", "utf-16 stream"), "Save it as text in UTF-8."),
    (
        ("more than one genome",),
        "Read one of them in Python, `scanpy.read_10x_h5(path, genome=...)`, write it as .h5ad, and name that file.",
    ),
    (
        ("no read method registered", "zarr_format", "encoding_version"),
        "Update the reader: `pip install -U anndata zarr`.",
    ),
)
#: The remedy for any other cause, such as a file that is truncated.
REMEDY = "Copy or download it again, or write it again with the program that made it."


@contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """Turn an error of a reader into a message with its cause and a remedy.

    Parameters
    ----------
    path
        File or folder that is read.
    kind
        As what it is read, such as ``"an HDF5 file"``.

    Raises
    ------
    UserError
        In place of the error of the reader. Errors in the code of this package are raised as they are.
    """
    try:
        yield
    except (ScrclError, MemoryError):
        raise
    except PermissionError as error:
        name = error.filename or path
        raise UserError(
            f"{name} cannot be read: {error.strerror or error}.",
            f"Ask its owner for access, or change it: `chmod u+rX {shlex.quote(str(name))}`.",
        ) from error
    except ImportError as error:
        raise UserError(
            f"{path} requires {error.name} to be read.", f"Install it: `pip install {error.name}`."
        ) from error
    except Exception as error:
        if is_internal(error):
            raise
        missing = f"{error.args[0]} is not in it" if isinstance(error, KeyError) and error.args else ""
        cause = missing or " ".join(str(error).split()).rstrip(".") or type(error).__name__
        known = (remedy for words, remedy in REMEDIES if any(word in cause.lower() for word in words))
        raise UserError(f"{path} cannot be read as {kind}: {cause}.", next(known, REMEDY)) from error


def is_internal(error: Exception) -> bool:
    """Whether an error is a mistake in this package: an unknown name anywhere, an attribute or a type in its own code."""
    frames = traceback.extract_tb(error.__traceback__)
    is_own = bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
    return isinstance(error, NameError) or (is_own and isinstance(error, AttributeError | TypeError | AssertionError))


def check_is_readable(path: Path) -> None:
    """Refuse a file that is empty or that may not be read.

    Raises
    ------
    UserError
        With the cause.
    """
    with explained(path, "a file"), path.open("rb") as file:
        if not file.read(1):
            raise UserError(f"{path} cannot be read: it is empty.", REMEDY)


def find_disguise(path: Path) -> UserError | None:
    """The error for a file that begins like something that is not read here; ``None`` for any other file."""
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
    for start, what, remedy in DISGUISES:
        if head.startswith(start):
            unpacked = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"unpacked-{path.name}")
            names = {"path": shlex.quote(str(path)), "unpacked": shlex.quote(str(unpacked))}
            return UserError(f"{path} cannot be read: it is {what}.", remedy.format(**names))
    return None
