# cython: language_level=3, boundscheck=False, wraparound=False
"""The hot path: from a float32 matrix to the bytes of a response body, in one pass, and back.

Checks arguments, frames JSON around vectors and decides what runs without the GIL. What happens to
one vector (sum of squares, scaling, base64, float text, and reading these) is in the C++ headers
beside this file. There is no Python object per number anywhere, and a body is allocated once.

Every function that hands out vectors refuses those that are not finite. One check does it, before
anything is written: the sum of the squares of float32 numbers cannot overflow a double, so it is
finite if and only if all of them are; and scaling by 1 / sqrt(sum) gives numbers of at most 1.
Where smaller numbers than float32 are wanted, a chunk of the vector is packed and then written.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport isfinite, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, strcmp, strlen

import numpy

from llmrs.errors import InvalidRequest, NonFiniteEmbedding

cdef extern from "Python.h":
    ctypedef struct PyVarObject
    void Py_SET_SIZE(PyVarObject* object, Py_ssize_t size)

cdef extern from "_fast_kernels.hpp" namespace "llmrs" nogil:
    cdef struct Table:
        const float* numbers
        int64_t width
        const int32_t* mapping
        const float* weights
    cdef struct Kernels:
        const char* name
        double (*widen)(double*, const float*, int64_t) noexcept nogil
        void (*narrow)(float*, const double*, int64_t, double) noexcept nogil
        bint (*pack)(void*, const float*, int64_t, int) noexcept nogil
        void (*unpack_halves)(float*, const uint16_t*, int64_t) noexcept nogil
        char* (*write_base64)(char*, const uint8_t*, int64_t) noexcept nogil
        char* (*write_floats)(char*, const float*, int64_t) noexcept nogil
        bint (*read_base64)(float*, const char*, int64_t) noexcept nogil
        bint (*read_floats)(float*, const char*, const char*, int64_t) noexcept nogil
        void (*mean)(float*, const Table&, const int32_t*, int64_t) noexcept nogil
    const Kernels* kernels
    const Kernels* available_kernels(int)
    const Kernels* emulated_kernels()
    const Py_ssize_t kFloatText, kFloatSlack, kIntegerText
    const int kFloat32, kFloat16, kInt8, kUint8, kBinary, kUbinary
    int64_t packed_size(int64_t, int) noexcept
    int64_t packed_count(int64_t, int) noexcept
    char* write_integers(char*, const uint8_t*, int64_t, int) noexcept
    int64_t base64_length(const char*, int64_t) noexcept
    int64_t base64_size(int64_t) noexcept
    int64_t floats_length(const char*, const char*) noexcept
    const int kMinPower, kMaxPower
    uint64_t* powers_of_ten

cdef enum:
    # Giving the GIL away can cost a whole switch interval until it comes back, so it is kept for
    # work that is shorter: 8192 numbers take some 40 us as text, 6 us as base64.
    KEEP_GIL_BELOW = 8192
    # The same for means of rows: this many numbers are added up in some 50 us, so batches that are not worth
    # a thread of their own keep it.
    KEEP_GIL_FOR_MEANS = 262144
    # Scaled numbers go through buffers that fit the L1 cache, and hold a vector of most models whole.
    # Base64 takes three bytes at a time, so every chunk but the last is a multiple of three, also in bits.
    CHUNK = 1536
    MAX_TOKEN_ID = 2147483647

cdef struct Rows:
    const float* data
    Py_ssize_t count
    Py_ssize_t width
    Py_ssize_t dimensions
    bint normalize
    bint base64
    int kind               # what numbers are written as, one of KINDS
    bint as_objects        # {"object":"embedding","index":i,"embedding":...} or the bare vector
    Py_ssize_t not_finite  # out: the first row that is not finite
    bint too_large         # out: it is finite, but a number in it is too large for float16

cdef dict KINDS = {
    "float32": kFloat32,
    "float16": kFloat16,
    "int8": kInt8,
    "uint8": kUint8,
    "binary": kBinary,
    "ubinary": kUbinary,
}

cdef const char* ITEM_OPEN = b'{"object":"embedding","index":'
cdef const char* ITEM_VECTOR = b',"embedding":'


def encode_openai(
    matrix,
    *,
    Py_ssize_t dimensions,
    bint normalize,
    bint base64,
    bytes model_json not None,
    Py_ssize_t n_tokens,
    str dtype not None="float32",
):
    """The body of an answer to /v1/embeddings; see _fast.pyi."""
    if n_tokens < 0:
        raise ValueError("n_tokens must not be negative")
    tail = b'],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (model_json, n_tokens, n_tokens)
    tail += b"}" if dtype == "float32" else b',"output_dtype":"%b"}' % dtype.encode()
    return encode(matrix, dimensions, normalize, base64, dtype, True, b'{"object":"list","data":[', tail)


def encode_rows(
    matrix,
    *,
    Py_ssize_t dimensions,
    bint normalize,
    bytes prefix not None,
    bytes suffix not None,
    str dtype not None="float32",
):
    """Bare vectors as arrays of numbers between `prefix` and `suffix`; see _fast.pyi."""
    return encode(matrix, dimensions, normalize, False, dtype, False, prefix + b"[", b"]" + suffix)


def normalize_rows(matrix, Py_ssize_t dimensions):
    """A new matrix of unit vectors, cut to `dimensions`; see _fast.pyi."""
    cdef Py_buffer source, target
    cdef Rows rows
    get_rows(matrix, dimensions, &source, &rows)
    try:
        result = numpy.empty((rows.count, dimensions), numpy.float32)
        PyObject_GetBuffer(result, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        if rows.count * dimensions < KEEP_GIL_BELOW:
            scale_rows(<float*>target.buf, &rows)
        else:
            with nogil:
                scale_rows(<float*>target.buf, &rows)
        PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)
    if rows.not_finite >= 0:
        raise NonFiniteEmbedding(rows.not_finite)
    return result


def read_vectors(tuple rows not None, *, bint strings):
    """A float32 matrix of JSON values that are arrays of numbers, or base64; see _fast.pyi."""
    cdef Py_buffer source, target
    cdef Py_ssize_t i, count = len(rows), width = 0
    cdef bint read = count > 0
    matrix = None
    for i in range(count):
        PyObject_GetBuffer(rows[i], &source, PyBUF_SIMPLE)
        if i == 0:
            width = length_of(&source, strings)
        read = read and may_have(&source, width, strings)
        PyBuffer_Release(&source)
    if not read:
        return None
    matrix = numpy.empty((count, width), numpy.float32)
    PyObject_GetBuffer(matrix, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    try:
        for i in range(count):
            PyObject_GetBuffer(rows[i], &source, PyBUF_SIMPLE)
            read = may_have(&source, width, strings) and read_vector(
                <float*>target.buf + i * width, &source, width
            )
            PyBuffer_Release(&source)
            if not read:
                return None
    finally:
        PyBuffer_Release(&target)
    return matrix


def mean_rows(
    const int32_t[::1] ids not None,
    const int64_t[::1] lengths not None,
    const float[:, ::1] table not None,
    const int32_t[::1] mapping=None,
    const float[::1] weights=None,
):
    """A matrix of the means of rows of a table; see _fast.pyi."""
    cdef Table source = Table(&table[0, 0], table.shape[1], NULL, NULL)
    cdef Py_ssize_t texts = lengths.shape[0], tokens = ids.shape[0]
    cdef Py_ssize_t vocabulary = table.shape[0] if mapping is None else mapping.shape[0]
    if weights is not None and weights.shape[0] != vocabulary:
        raise ValueError("there must be a weight for every id")
    if mapping is not None:
        source.mapping = &mapping[0]
    if weights is not None:
        source.weights = &weights[0]
    if not are_ids(&ids[0], tokens, vocabulary, source.mapping, table.shape[0]):
        raise ValueError("an id is outside the table")
    if not add_up(&lengths[0], texts, tokens):
        raise ValueError("the lengths must add up to the number of ids")
    result = numpy.empty((texts, table.shape[1]), numpy.float32)
    cdef float[:, ::1] out = result
    if tokens * source.width < KEEP_GIL_FOR_MEANS:
        write_means(&out[0, 0], &source, &ids[0], &lengths[0], texts)
    else:
        with nogil:
            write_means(&out[0, 0], &source, &ids[0], &lengths[0], texts)
    return result


def first_not_text(list items not None):
    """Index of the first element that is not exactly a str, -1 if all are."""
    cdef Py_ssize_t i
    for i in range(PyList_GET_SIZE(items)):
        if not PyUnicode_CheckExact(<object>PyList_GET_ITEM(items, i)):
            return i
    return -1


def first_not_token_id(list items not None):
    """Index of the first element that is not a token id, -1 if all are; see _fast.pyi."""
    return find_not_token_id(items)


def first_not_token_ids(list items not None):
    """Index of the first element that is not a list of token ids with at least one, -1 if all are."""
    cdef Py_ssize_t i
    for i in range(PyList_GET_SIZE(items)):
        item = <object>PyList_GET_ITEM(items, i)
        if type(item) is not list or PyList_GET_SIZE(item) == 0 or find_not_token_id(item) >= 0:
            return i
    return -1


def kernel_names():
    """The kernel variants that this CPU can run, the best one first."""
    names = []
    while available_kernels(len(names)) is not NULL:
        names.append(available_kernels(len(names)).name.decode())
    return names


def kernel_name():
    """The kernel variant in use."""
    return kernels.name.decode()


def use_kernels(str name not None):
    """Switch to another variant of `kernel_names()`, or to `avx512_emulated`: for tests and benchmarks."""
    global kernels
    if name == "avx512_emulated" and emulated_kernels() is not NULL:
        kernels = emulated_kernels()
    else:
        kernels = available_kernels(kernel_names().index(name))


cdef Py_ssize_t length_of(const Py_buffer* row, bint strings) noexcept:
    """How many numbers a row has if it can be read at all."""
    cdef const char* text = <const char*>row.buf
    if row.len > 2 and text[0] == b'"' and strings:
        return base64_length(text + 1, row.len - 2)
    return floats_length(text, text + row.len)


cdef bint may_have(const Py_buffer* row, Py_ssize_t width, bint strings) noexcept:
    """Whether a row is long enough for `width` numbers: no memory is asked for that it does not pay for."""
    cdef const char* text = <const char*>row.buf
    if width < 1 or row.len < 3:
        return False
    if text[0] == b'"':
        return strings and text[row.len - 1] == b'"' and row.len - 2 == base64_size(width)
    return row.len > 2 * width


cdef bint read_vector(float* out, const Py_buffer* row, Py_ssize_t width) noexcept:
    cdef const char* text = <const char*>row.buf
    if text[0] == b'"':
        return kernels.read_base64(out, text + 1, width)
    return kernels.read_floats(out, text, text + row.len, width)


cdef Py_ssize_t find_not_token_id(list items) except -2:
    cdef Py_ssize_t i
    cdef int overflow = 0
    cdef long long value
    for i in range(PyList_GET_SIZE(items)):
        item = <object>PyList_GET_ITEM(items, i)
        if not PyLong_CheckExact(item):
            return i
        value = PyLong_AsLongLongAndOverflow(item, &overflow)
        if overflow or value < 0 or value > MAX_TOKEN_ID:
            return i
    return -1


cdef int get_rows(matrix, Py_ssize_t dimensions, Py_buffer* view, Rows* rows) except -1:
    """Fill `view`, which the caller releases, and `rows` from a matrix, or say what is wrong with it."""
    try:
        PyObject_GetBuffer(matrix, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except BufferError:
        raise ValueError("the matrix must be C-contiguous") from None
    try:
        if view.format is NULL or (strcmp(view.format, b"f") != 0 and strcmp(view.format, b"<f") != 0):
            raise ValueError("the matrix must be of float32")
        if view.ndim != 2:
            raise ValueError(f"the matrix must have two axes, not {view.ndim}")
        if view.shape[0] < 1:
            raise ValueError("the matrix must have at least one row")
        if not 1 <= dimensions <= view.shape[1]:
            raise ValueError(f"dimensions must be from 1 to {view.shape[1]}, not {dimensions}")
    except ValueError:
        PyBuffer_Release(view)
        raise
    rows.data = <const float*>view.buf
    rows.count = view.shape[0]
    rows.width = view.shape[1]
    rows.dimensions = dimensions
    rows.not_finite = -1
    rows.too_large = False
    return 0


cdef bytes encode(
    matrix,
    Py_ssize_t dimensions,
    bint normalize,
    bint base64,
    str dtype,
    bint as_objects,
    bytes head,
    bytes tail,
):
    cdef Py_buffer view
    cdef Rows rows
    cdef int kind = KINDS[dtype]
    if kind >= kBinary and dimensions % 8:
        raise ValueError(f"dimensions must be a multiple of 8, not {dimensions}")
    get_rows(matrix, dimensions, &view, &rows)
    try:
        rows.normalize = normalize
        rows.base64 = base64
        rows.kind = kind
        rows.as_objects = as_objects
        return write_body(&rows, head, tail)
    finally:
        PyBuffer_Release(&view)


cdef bytes write_body(Rows* rows, bytes head, bytes tail):
    """Allocate for the longest body possible and write.

    What was not needed stays allocated as long as the body lives, at most a quarter for usual float
    text. Giving it back would cost more: glibc takes blocks above a threshold from the system page by
    page, and learns a higher threshold from the blocks freed; the shortened block would never teach
    it the size that is asked for. (2048 x 384 floats took 9.9 ms so, instead of 5.)
    """
    cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head), tail_size = PyBytes_GET_SIZE(tail)
    cdef bytes body = PyBytes_FromStringAndSize(NULL, head_size + longest_items(rows) + tail_size)
    cdef char* start = PyBytes_AS_STRING(body)
    cdef char* end
    memcpy(start, PyBytes_AS_STRING(head), head_size)
    if rows.count * rows.dimensions < KEEP_GIL_BELOW:
        end = write_items(start + head_size, rows)
    else:
        with nogil:
            end = write_items(start + head_size, rows)
    if rows.too_large:
        raise InvalidRequest(
            f"the vector for the input at index {rows.not_finite} has a number beyond float16's 65504",
            param="output_dtype",
        )
    if rows.not_finite >= 0:
        raise NonFiniteEmbedding(rows.not_finite)
    memcpy(end, PyBytes_AS_STRING(tail), tail_size)
    end[tail_size] = 0  # bytes objects end in a zero beyond their size
    Py_SET_SIZE(<PyVarObject*>body, end + tail_size - start)
    return body


cdef Py_ssize_t longest_items(const Rows* rows) noexcept nogil:
    cdef Py_ssize_t item = 3  # quotes or brackets, and a comma
    if rows.as_objects:
        item += strlen(ITEM_OPEN) + 20 + strlen(ITEM_VECTOR) + 1
    if rows.base64:
        item += (packed_size(rows.dimensions, rows.kind) + 2) // 3 * 4
    elif rows.kind <= kFloat16:
        item += kFloatText * rows.dimensions
    else:
        item += kIntegerText * packed_count(rows.dimensions, rows.kind)
    return rows.count * item + kFloatSlack


cdef char* write_items(char* out, Rows* rows) noexcept nogil:
    """Write all rows with commas between them; return the end, or NULL at a row that is not finite."""
    cdef Py_ssize_t i
    for i in range(rows.count):
        if rows.as_objects:
            out = put(out, ITEM_OPEN)
            out = put_number(out, i)
            out = put(out, ITEM_VECTOR)
        out = write_vector(out, rows.data + i * rows.width, rows)
        if out is NULL:
            rows.not_finite = i
            return NULL
        if rows.as_objects:
            out = put(out, b"}")
        out = put(out, b",")
    return out - 1


cdef char* write_vector(char* out, const float* vector, Rows* rows) noexcept nogil:
    cdef double wide[CHUNK]
    cdef float scaled[CHUNK]
    cdef const float* numbers
    cdef Py_ssize_t start = 0, size
    cdef double squares = sum_of_squares(wide, vector, rows.dimensions)
    cdef bint scaling = rows.normalize and squares != 0
    cdef double factor = 1 / sqrt(squares) if scaling else 1
    if not isfinite(squares):
        return NULL
    out = put(out, b'"' if rows.base64 else b"[")
    while start < rows.dimensions:
        size = min(<Py_ssize_t>CHUNK, rows.dimensions - start)
        numbers = vector + start
        if scaling:
            scale(scaled, wide, numbers, size, factor, rows.dimensions)
            numbers = scaled
        out = write_numbers(out, numbers, size, rows)
        if out is NULL:
            return NULL
        start += size
    if rows.base64:
        return put(out, b'"')
    return put(out - 1, b"]")  # in place of the last comma


cdef double sum_of_squares(double* wide, const float* vector, Py_ssize_t length) noexcept nogil:
    """Leaves in `wide` the last chunk of the vector as doubles."""
    cdef Py_ssize_t start = 0
    cdef double squares = 0
    while start < length:
        squares += kernels.widen(wide, vector + start, min(<Py_ssize_t>CHUNK, length - start))
        start += CHUNK
    return squares


cdef inline void scale(
    float* out, double* wide, const float* chunk, Py_ssize_t size, double factor, Py_ssize_t length
) noexcept nogil:
    """A chunk of a vector of `length`, which is in `wide` already if it is the only one."""
    if length > CHUNK:
        kernels.widen(wide, chunk, size)
    kernels.narrow(out, wide, size, factor)


cdef inline char* write_numbers(char* out, const float* numbers, Py_ssize_t size, Rows* rows) noexcept nogil:
    """Write at most CHUNK numbers, in text with a comma after each; NULL if one is too large."""
    if rows.kind != kFloat32:
        return write_packed(out, numbers, size, rows)
    if rows.base64:
        return kernels.write_base64(out, <const uint8_t*>numbers, 4 * size)
    return kernels.write_floats(out, numbers, size)


cdef char* write_packed(char* out, const float* numbers, Py_ssize_t size, Rows* rows) noexcept nogil:
    cdef uint16_t halves[CHUNK]
    cdef uint8_t* packed = <uint8_t*>halves
    cdef float rounded[CHUNK]
    rows.too_large = not kernels.pack(packed, numbers, size, rows.kind)
    if rows.too_large:
        return NULL
    if rows.base64:
        return kernels.write_base64(out, packed, packed_size(size, rows.kind))
    if rows.kind == kFloat16:
        kernels.unpack_halves(rounded, halves, size)
        return kernels.write_floats(out, rounded, size)
    return write_integers(out, packed, packed_size(size, rows.kind), rows.kind)


cdef void scale_rows(float* out, Rows* rows) noexcept nogil:
    cdef double wide[CHUNK]
    cdef Py_ssize_t i, start, size
    cdef const float* vector
    cdef double squares, factor
    for i in range(rows.count):
        vector = rows.data + i * rows.width
        squares = sum_of_squares(wide, vector, rows.dimensions)
        if not isfinite(squares):
            rows.not_finite = i
            return
        factor = 1 / sqrt(squares) if squares else 0  # a zero vector has no direction: it stays zero
        start = 0
        while start < rows.dimensions:
            size = min(<Py_ssize_t>CHUNK, rows.dimensions - start)
            scale(out, wide, vector + start, size, factor, rows.dimensions)
            out += size
            start += size


cdef bint are_ids(
    const int32_t* ids, Py_ssize_t count, Py_ssize_t vocabulary, const int32_t* mapping, Py_ssize_t rows
) noexcept:
    """Whether all are ids below `vocabulary`, mapped to rows that there are."""
    cdef Py_ssize_t i
    for i in range(count):
        if not 0 <= ids[i] < vocabulary:
            return False
        if mapping is not NULL and not 0 <= mapping[ids[i]] < rows:
            return False
    return True


cdef bint add_up(const int64_t* lengths, Py_ssize_t count, Py_ssize_t total) noexcept:
    cdef Py_ssize_t i
    for i in range(count):
        if not 0 <= lengths[i] <= total:
            return False
        total -= lengths[i]
    return total == 0


cdef void write_means(
    float* out, const Table* table, const int32_t* ids, const int64_t* lengths, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        kernels.mean(out, table[0], ids, lengths[i])
        ids += lengths[i]
        out += table.width


cdef inline char* put(char* out, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    memcpy(out, text, size)
    return out + size


cdef char* put_number(char* out, Py_ssize_t number) noexcept nogil:
    cdef char digits[20]
    cdef int i = 20
    while True:
        i -= 1
        digits[i] = 48 + number % 10
        number //= 10
        if number == 0:
            break
    memcpy(out, digits + i, 20 - i)
    return out + 20 - i


def _power_of_ten(object exponent):
    """10^exponent times the power of two that brings it to 64 bits, rounded up."""
    cdef object ten = 10  # Python's own integers, which are exact; over 100 more bits than needed
    numerator = ten ** max(exponent, <object>0) << 400
    denominator = ten ** max(-exponent, <object>0)
    excess = (numerator // denominator).bit_length() - 64
    return -(-numerator // (denominator << excess))


for _exponent in range(kMinPower, kMaxPower + 1):
    powers_of_ten[_exponent - kMinPower] = _power_of_ten(_exponent)
