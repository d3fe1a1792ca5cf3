"""Why a file cannot be read, in the words of what failed, and what to do about it."""

import gzip
import shlex
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

PACKAGE = Path(__file__).parents[1]
#: What files begin with that are named like data and are something else: what they are, and what to do.
DISGUISES = (
    (b"<", "is a web page or a message of a server, as downloads that fail leave them", "Download it again."),
    (b"{", "is text in JSON", "Name the file that holds the counts."),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "Fetch the file: `git lfs pull`."),
    (b"\x1f\x8b", "is compressed with gzip", "Unpack it: `gzip -dc {path} > {unpacked}`, and name that file."),
    (b"BZh", "is compressed with bzip2", "Unpack it: `bzip2 -dc {path} > {unpacked}`, and name that file."),
    (b"\xfd7zXZ", "is compressed with xz", "Unpack it: `xz -dc {path} > {unpacked}`, and name that file."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "Unpack it: `zstd -dc {path} > {unpacked}`, and name that file."),
    (b"PK\x03\x04", "is a zip archive", "Unpack it, and name what is in it."),
    (b"\x89HDF", "is an HDF5 file", "Give it its own ending: .h5ad, .h5mu, or .h5 of 10x."),
    (b"\xd0\xcf\x11\xe0", "is an Excel file", "Save it as .csv, and name that file."),
)
#: What the messages of HDF5, gzip and the others have in common: a remedy for each cause.
REMEDIES = (
    (
        ("unable to lock",),
        "is locked and",
        "Close the program that has it open for writing. If there is none, as on some network drives, switch locks off: "
        "`export HDF5_USE_FILE_LOCKING=FALSE`.",
    ),
    (
        ("required filter", "is not registered", "plugin", "filter is not available"),
        "is compressed with a plugin of HDF5 and",
        "Install the common plugins: `pip install hdf5plugin`.",
    ),
    (
        ("truncated file", "end-of-stream marker", "unexpected end of data", "premature eof", "truncated header"),
        "is cut off and",
        "Copy or download it again.",
    ),
    (("not a gzipped file",), "is not compressed, though its name says so, and", "Take .gz off its name."),
    (("codec can't decode", "utf-16 stream"), "", "Save it as text in UTF-8."),
    (
        ("no read method registered", "zarr_format", "encoding_version"),
        "",
        "Update the reader: `pip install -U anndata zarr`.",
    ),
    (
        (
            "filter returned failure",
            "inflate",
            "decompress",
            "crc check",
            "checksum",
            "invalid block",
            "invalid code",
            "invalid stored",
            "bad object header",
            "wrong b-tree",
            "bad heap",
            "signature",
            "addr overflow",
            "unable to determine object type",
            "can't get object",
            "version number",
        ),
        "is damaged and",
        "Copy or download it again.",
    ),
)
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}


@contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a reader raises into a message with its cause and a remedy that fits.

    Parameters
    ----------
    path
        File or folder that is read.
    kind
        As what it is read, such as ``"an HDF5 file"``.

    Raises
    ------
    UserError
        In the place of whatever the reader raises. Mistakes of this package stay what they are.
    """
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise UserError(
            f"{error.filename or path} cannot be read: {error.strerror or error}. Ask its owner for access, or give it to "
            f"yourself: `chmod u+rX {shlex.quote(str(error.filename or path))}`."
        ) from error
    except ImportError as error:
        raise UserError(f"{path} needs {error.name} to be read: `pip install {error.name}`.") from error
    except Exception as error:
        if is_internal(error):
            raise
        raise UserError(_explain(path, kind, error)) from error


def is_internal(error: Exception) -> bool:
    """Whether an error is a mistake in this package: an unknown name anywhere, an attribute or a type in its own code."""
    frames = traceback.extract_tb(error.__traceback__)
    is_own = bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
    return isinstance(error, NameError) or (is_own and isinstance(error, AttributeError | TypeError | AssertionError))


def _explain(path: Path, kind: str, error: Exception) -> str:
    cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, KeyError) and error.args:
        cause = " ".join(str(error.args[0]).split()).rstrip(".")
        cause = cause if " " in cause else f"{cause!r} is not in it"
    text = f"{cause} {type(error).__name__}".lower()
    for words, state, remedy in REMEDIES:
        if any(word in text for word in words):
            return f"{path} {f'{state} ' if state else ''}cannot be read as {kind}: {cause}. {remedy}"
    if isinstance(error, (zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)):
        return f"{path} is damaged and cannot be read as {kind}: {cause}. Copy or download it again."
    return f"{path} cannot be read as {kind}: {cause}. Correct this where it was made, and write it anew."


def check_is_readable(path: Path) -> None:
    """Refuse a file that is empty or that may not be read.

    Raises
    ------
    UserError
        With the cause.
    """
    with explained(path, "a file"), path.open("rb") as file:
        if not file.read(1):
            raise UserError(f"{path} cannot be read: it is empty. Copy or download it again.")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")


def is_disguised(path: Path) -> bool:
    """Whether a file begins like something that holds no data to be read."""
    return _head(path).startswith(tuple(start for start, *_ in DISGUISES))


def look_through(path: Path, of_kind: str) -> UserError:
    """Say what a file is that is not what its name says.

    Parameters
    ----------
    path
        File that can be read and is not empty.
    of_kind
        What it is not, such as ``"no HDF5 file, as .h5ad files are"``.
    """
    head = _head(path)
    for start, what, remedy in DISGUISES:
        if head.startswith(start):
            bare = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else f"unpacked-{path.name}"
            quoted = remedy.format(path=shlex.quote(str(path)), unpacked=shlex.quote(str(path.with_name(bare))))
            return UserError(f"{path} cannot be read: it {what}. {quoted}")
    return UserError(f"{path} cannot be read: it is {of_kind}. Name another file, or write it anew.")
