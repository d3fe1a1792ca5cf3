"""Counts of cells by genes, in memory or not, read a block of cells at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scrcl.utils.checks import Matrix, Remedy, as_counts, check_cells_have_counts, no_remedy
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.progress import track
from scrcl.utils.sizes import BLOCK_CELLS, BLOCK_ENTRIES
from scrcl.utils.sparse import row_slice

#: If fewer than one in so many cells of a block are requested, they are read one by one, which takes so many times as long.
FEW_CELLS = 16
#: Most counts above zero that are kept in memory in place of reading a file again, in about 3 bytes each.
KEPT_ENTRIES = 100_000_000
#: Cells at the start of a file from which the number of its counts above zero is estimated.
ESTIMATED_CELLS = 256


class RowMatrix(Protocol):
    """An array of which rows can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows and of columns."""

    def __getitem__(self, rows: slice | np.ndarray) -> Matrix:
        """Read rows."""


@dataclass(frozen=True)
class Counts:
    """Counts of ``n`` cells by ``G`` genes.

    Attributes
    ----------
    matrix
        Anything of which a slice of rows can be taken: NumPy and SciPy arrays, arrays that anndata opened from HDF5 or
        Zarr, dask arrays.
    where
        Name of the matrix, for messages.
    columns
        Numbers of the genes that are read; all by default.
    find_remedy
        Finds the remedy if the matrix does not contain counts.
    """

    matrix: RowMatrix
    where: str
    columns: np.ndarray | None = None
    find_remedy: Callable[[], Remedy] = no_remedy

    @classmethod
    def of(
        cls, matrix: RowMatrix | pd.DataFrame | None, where: str, find_remedy: Callable[[], Remedy] = no_remedy
    ) -> Self:
        """Wrap counts in any form, without reading them.

        Raises
        ------
        ValueError
            If the matrix is ``None`` or empty, or is stored in a file by genes.
        """
        if matrix is None:
            remedy = find_remedy()
            raise ScrclValueError(f"{where} is empty.", remedy.python, command=remedy.command, where=where)
        if isinstance(matrix, pd.DataFrame):
            matrix = matrix.to_numpy()
        if 0 in matrix.shape:
            raise ScrclValueError(
                f"{where} has the shape {matrix.shape}, without cells or genes.",
                "Check how it was filtered.",
                where=where,
            )
        if sp.issparse(matrix):
            matrix = sp.csr_array(matrix)
        elif getattr(matrix, "format", "csr") == "csc":
            raise ScrclValueError(
                f"{where} is stored by genes (CSC), so that every block of cells would need the whole file.",
                "Load it, `adata = adata.to_memory()`, or store it by cells: `adata.X = adata.X.tocsr()`.",
                command="Store it by cells (CSR).",
                where=where,
            )
        return cls(matrix, where, find_remedy=find_remedy)

    @property
    def in_memory(self) -> bool:
        """Whether the matrix is in memory."""
        return isinstance(self.matrix, np.ndarray) or sp.issparse(self.matrix)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.matrix.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes that are read."""
        return int(self.matrix.shape[1]) if self.columns is None else len(self.columns)

    def select(self, columns: np.ndarray) -> Self:
        """The same cells with fewer genes, by their numbers among those that are read."""
        return replace(self, columns=columns if self.columns is None else self.columns[columns])

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[slice, sp.csr_array]]:
        """Read cells in blocks.

        Parameters
        ----------
        rows
            Cells to read, increasing; all by default.

        Yields
        ------
        Positions of the cells of a block among the requested ones, and their counts, canonical CSR float32.

        Raises
        ------
        ValueError
            If they are not finite, non-negative and integral, or cannot be read.
        """
        step = max(1, min(BLOCK_CELLS, BLOCK_ENTRIES // max(1, self.n_genes)))
        starts = range(0, self.n_cells, step) if rows is None else (np.unique(rows // step) * step).tolist()
        for start in track(starts, len(starts)):
            stop = min(start + step, self.n_cells)
            if rows is None:
                yield slice(start, stop), self._read(slice(start, stop))
                continue
            first, last = np.searchsorted(rows, [start, stop])
            requested = rows[first:last]
            few = len(requested) * FEW_CELLS < stop - start
            block = self._read(requested) if few else self._read(slice(start, stop))[requested - start]
            yield slice(first, last), block

    def read(self, rows: np.ndarray | None = None) -> sp.csr_array:
        """Counts of cells, increasing, in one matrix; all by default."""
        blocks = [block for _, block in self.blocks(rows)]
        return (
            sp.csr_array(sp.vstack(blocks, format="csr"))
            if blocks
            else sp.csr_array((0, self.n_genes), dtype=np.float32)
        )

    def packed(self, rows: np.ndarray | None = None) -> Self:
        """Counts of cells, increasing, in little memory; all by default. See :class:`PackedRows`."""
        return replace(self, matrix=PackedRows(self, rows), columns=None)

    def kept(self) -> Self:
        """The same, or packed if they are in a file and few enough, so that the file is read once."""
        if self.in_memory:
            return self
        head = self.head(ESTIMATED_CELLS)
        return self.packed() if head.nnz / head.shape[0] * self.n_cells <= KEPT_ENTRIES else self

    def check(self) -> None:
        """Check all counts in memory, or the first block of counts in a file.

        Raises
        ------
        ValueError
            As :meth:`blocks`, and if a cell has no counts.
        """
        if self.in_memory:
            totals = [block.sum(axis=1) for _, block in self.blocks()]
        else:
            totals = [self.head(BLOCK_CELLS).sum(axis=1)]
        check_cells_have_counts(np.concatenate(totals), self.where)

    def head(self, n_cells: int) -> sp.csr_array:
        """Counts of the first cells."""
        return self._read(slice(0, min(n_cells, self.n_cells)))

    def _read(self, rows: slice | np.ndarray) -> sp.csr_array:
        try:
            block: Matrix
            if isinstance(rows, slice) and isinstance(self.matrix, sp.csr_array):
                block = row_slice(self.matrix, rows)
            else:
                block = self.matrix[rows]
            if hasattr(block, "compute"):
                block = block.compute()
        except MemoryError:
            raise
        except Exception as error:  # files, compression and remote stores each have their own
            start = rows.start if isinstance(rows, slice) else rows[0]
            raise ScrclValueError(
                f"{self.where} cannot be read from cell {start:,} on: {type(error).__name__}: {error}.",
                "Check that its file is complete, readable and unchanged since it was opened; then open it again.",
                where=self.where,
            ) from error
        packed = isinstance(self.matrix, PackedRows)  # and checked before
        counts = sp.csr_array(block, dtype=np.float32) if packed else as_counts(block, self.where, self.find_remedy)
        return counts if self.columns is None else counts[:, self.columns]


class PackedRows:
    """Counts ``(n, G)`` in memory, in the smallest types of integers that hold them, of which rows can be read.

    Parameters
    ----------
    counts
        The counts.
    rows
        Cells to keep, increasing; all by default.
    """

    def __init__(self, counts: Counts, rows: np.ndarray | None = None) -> None:
        self.shape = (counts.n_cells if rows is None else len(rows), counts.n_genes)
        self._blocks, self._ends = [], []
        kind = np.min_scalar_type(counts.n_genes)
        for positions, block in counts.blocks(rows):
            largest = np.min_scalar_type(int(block.data.max(initial=0)))
            self._blocks.append((block.data.astype(largest), block.indices.astype(kind), block.indptr))
            self._ends.append(positions.stop)

    def __getitem__(self, rows: slice | np.ndarray) -> sp.csr_array:
        if not isinstance(rows, slice):
            return self[rows[0] : rows[-1] + 1][rows - rows[0]]
        start, stop, _ = rows.indices(self.shape[0])
        parts = []
        for number in range(int(np.searchsorted(self._ends, start, "right")), len(self._ends)):
            data, indices, indptr = self._blocks[number]
            first = self._ends[number] - len(indptr) + 1
            if first >= stop:
                break
            block = sp.csr_array((data, indices.astype(np.int32), indptr), (len(indptr) - 1, self.shape[1]))
            parts.append(row_slice(block, slice(max(start - first, 0), stop - first)))
        return parts[0] if len(parts) == 1 else sp.csr_array(sp.vstack(parts, format="csr"))
