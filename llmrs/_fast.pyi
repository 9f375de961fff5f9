import msgspec
import numpy as np
from numpy.typing import NDArray

from llmrs.embeddings import Matrix, OutputDtype

def encode_openai(
    matrix: Matrix,
    *,
    dimensions: int,
    normalize: bool,
    base64: bool,
    model_json: bytes,
    n_tokens: int,
    dtype: OutputDtype = "float32",
) -> bytes:
    """The whole body of an answer to `/v1/embeddings`, compact JSON in UTF-8.

    Takes C-contiguous float32 [n, d] with n >= 1 and writes the first `dimensions` numbers of each
    row: scaled to length 1 (in float64, the result rounded to float32; a zero vector stays zero) if
    `normalize`, as padded base64 of little-endian float32 or as shortest float32 text.
    `model_json` is the model's name as a JSON string, `n_tokens` is both counts of `usage`.

    Other `dtype`s than float32 are made of these numbers as `OutputDtype` says, numbers beyond 1 in
    absolute value count as 1 for int8 and uint8; base64 is that of the packed numbers (little-endian
    float16), text is a half's shortest float32 text or an integer. The body names such a dtype.

    Raises:
        NonFiniteEmbedding: a row holds NaN or infinity among its first `dimensions` numbers.
        InvalidRequest: a number rounds to infinity in float16.
        KeyError, TypeError, ValueError: the matrix is not as above, `dimensions` not in 1..d or, for
            bits, not a multiple of eight, `n_tokens` is negative, or the dtype is not known.
    """

def encode_rows(
    matrix: Matrix,
    *,
    dimensions: int,
    normalize: bool,
    prefix: bytes,
    suffix: bytes,
    dtype: OutputDtype = "float32",
) -> bytes:
    """`prefix`, then `[[...],...]` as `encode_openai` writes numbers, then `suffix`. Raises the same."""

def normalize_rows(matrix: Matrix, dimensions: int) -> Matrix:
    """A new matrix [n, dimensions] of unit vectors: the numbers `encode_openai` writes. Raises the same."""

def read_vectors(rows: tuple[bytes | msgspec.Raw, ...], *, strings: bool) -> Matrix | None:
    """The float32 matrix of JSON arrays of numbers, all of one width and at least one wide.

    Where `strings`, a row may also be a JSON string: padded base64 of little-endian float32. A null
    among the numbers is NaN. Every other number is what `numpy.float32(float(text))` is.

    None stands for rows that have to be read otherwise: they are not as above; or a string holds an
    escape; or a number is so close to the middle between two float32, so large or so small that it
    would take more work to round it.

    Raises:
        TypeError: a row has no buffer of bytes.
    """

def mean_rows(
    ids: NDArray[np.int32],
    lengths: NDArray[np.int64],
    table: Matrix,
    mapping: NDArray[np.int32] | None = None,
    weights: NDArray[np.float32] | None = None,
) -> Matrix:
    """The means of rows of a table, float32 [len(lengths), d]: one for each run of `lengths` ids.

    The rows of a text are added in its order, in float32, and divided by their number, so its mean does
    not depend on the other texts; that of no ids is zero. `mapping` has the row of each id, without it an
    id is its row's number; `weights` has a factor for each id.

    Raises:
        ValueError: an id or a mapped row is outside the table, or the arrays do not fit each other or are
            not C-contiguous and of these dtypes.
    """

def first_not_text(items: list[object]) -> int:
    """Index of the first element that is not exactly a `str`, -1 if all are."""

def first_not_token_id(items: list[object]) -> int:
    """Index of the first element that is not exactly an `int` in 0..2^31-1, -1 if all are."""

def first_not_token_ids(items: list[object]) -> int:
    """Index of the first element that is not a non-empty list of token ids, -1 if all are."""

def kernel_names() -> list[str]:
    """The kernel variants that this CPU can run, the best one first, `baseline` last."""

def kernel_name() -> str:
    """The kernel variant in use, the best one unless `use_kernels` changed it."""

def use_kernels(name: str) -> None:
    """Switch to another variant of `kernel_names()`: for tests and benchmarks, not thread-safe.

    On x86-64 `avx512_emulated` is one, too: the algorithms of `avx512` on any CPU, only slower.
    """
