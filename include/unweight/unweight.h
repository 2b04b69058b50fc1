/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface: one tensor, one blob, as in <unweight/blob.hpp>. Plain C11, for programs in C and for the foreign
 * function interfaces of other languages.
 *
 * A blob is the runtime form of docs/FORMAT.md. It holds a batch of matrices W[batch][rows][cols] of 16-bit bfloat16
 * values without loss, at about 11.25 bits a value for trained weights.
 *
 * What holds for every function:
 *  - Memory. All of it is host memory and the caller's; the library keeps no pointer after it returns. Inputs and
 *    outputs of one call must not overlap. A pointer may be NULL only where this header says so, or where the number
 *    of its elements is 0.
 *  - Units. `..._bytes` are bytes, `value_count` counts bfloat16 values of 2 bytes, in native byte order.
 *  - Alignment. Blobs lie at any address. Arrays of values are aligned to 2 bytes, structures as their type asks.
 *  - Errors. The result is UNWEIGHT_OK or says what went wrong; unweight_last_error_message() has the details. Every
 *    function that returns a status can also return UNWEIGHT_INVALID_ARGUMENT for a pointer that is NULL or misaligned,
 *    UNWEIGHT_OUT_OF_MEMORY and UNWEIGHT_INTERNAL. Nothing is printed, aborts, or throws a C++ exception.
 *  - Threads. Every function may be called from any thread at any time, as long as no two calls at once write to the
 *    same memory. `threads` is how many a call may use, itself included; 0 stands for one per logical CPU. Results do
 *    not depend on it.
 *  - Bytes of unknown origin are welcome: a blob that was damaged or made up gives an error, never undefined behaviour.
 */
#ifndef UNWEIGHT_UNWEIGHT_H
#define UNWEIGHT_UNWEIGHT_H

#include <stddef.h>
#include <stdint.h>
#include <unweight/version.h>

#pragma GCC visibility push(default) /* the library hides all other symbols */
#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---------------------------------------------------------------------------------------------------- */

/** The version of these headers as one number that grows: 10000 * major + 100 * minor + patch. */
#define UNWEIGHT_VERSION_NUMBER (10000 * UNWEIGHT_VERSION_MAJOR + 100 * UNWEIGHT_VERSION_MINOR + UNWEIGHT_VERSION_PATCH)

/** The version of the library that runs, which may be later than that of the headers: "0.1.0". A static string. */
const char* unweight_version_string(void);

/** The same as UNWEIGHT_VERSION_NUMBER of the library that runs. */
uint32_t unweight_version_number(void);

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/**
 * What went wrong. The numbers never change their meaning and are those of unweight::ErrorCode; later releases may add
 * some. Not all of them come from the functions below.
 */
typedef enum unweight_status {
  UNWEIGHT_OK = 0,

  /* 10..19: the caller's arguments. */
  UNWEIGHT_INVALID_ARGUMENT = 10,  /**< a value is outside its documented range */
  UNWEIGHT_SHAPE_MISMATCH = 11,    /**< a buffer does not have the size that the shape asks for */
  UNWEIGHT_BUFFER_TOO_SMALL = 12,  /**< the output buffer is smaller than needed */
  UNWEIGHT_UNSUPPORTED_DTYPE = 13, /**< the operation exists, but not for this element type */

  /* 20..29: bytes of one blob. Documented below as "20..25". */
  UNWEIGHT_TRUNCATED = 20,           /**< fewer bytes than the header announces */
  UNWEIGHT_BAD_MAGIC = 21,           /**< the bytes are not an unweight blob */
  UNWEIGHT_UNSUPPORTED_VERSION = 22, /**< written by a later, incompatible format version */
  UNWEIGHT_CORRUPT_HEADER = 23,      /**< a header field contradicts the format or another field */
  UNWEIGHT_CORRUPT_PAYLOAD = 24,     /**< a table or a tile contradicts the format */
  UNWEIGHT_CHECKSUM_MISMATCH = 25,   /**< stored and computed checksums differ */

  /* 30..39: checkpoints and bundles. */
  UNWEIGHT_BAD_SAFETENSORS = 30, /**< a safetensors file violates its format */
  UNWEIGHT_BAD_JSON = 31,        /**< a JSON document does not parse or lacks a required member */
  UNWEIGHT_BAD_CHECKPOINT = 32,  /**< the files of a checkpoint contradict each other */
  UNWEIGHT_BAD_BUNDLE = 33,      /**< the files of a compressed bundle contradict each other */
  UNWEIGHT_NOT_IDENTICAL = 34,   /**< decoded bytes differ from the original bytes */
  UNWEIGHT_SOURCE_CHANGED = 35,  /**< the source changed since the interrupted run that is being continued */

  /* 40..49: the file system. */
  UNWEIGHT_IO = 40,        /**< the operating system refused a read or a write */
  UNWEIGHT_NO_SPACE = 41,  /**< no space left on the device, or over quota */
  UNWEIGHT_EXISTS = 42,    /**< the output exists already */
  UNWEIGHT_NOT_FOUND = 43, /**< the input does not exist */
  UNWEIGHT_BUSY = 44,      /**< another process holds the lock of the same output */

  /* 50..59: the device. */
  UNWEIGHT_NO_DEVICE = 50, /**< no usable GPU or no driver */
  UNWEIGHT_CUDA = 51,      /**< a CUDA call failed */

  /* 60..69: everything else. */
  UNWEIGHT_OUT_OF_MEMORY = 60, /**< an allocation of the library failed */
  UNWEIGHT_CANCELLED = 61,     /**< the caller's callback asked to stop */
  UNWEIGHT_INTERNAL = 62       /**< a defect of the library */
} unweight_status;

/**
 * The status in words: "checksum mismatch"; "unknown error" for a number that this release does not know. A static
 * string, never NULL.
 */
const char* unweight_status_name(uint32_t status);

/**
 * What the calling thread's latest call that returned a status has to say about its failure: one line without a newline
 * or a final period, with the values that matter, such as "63 values for shape 1 x 8 x 8, which has 64". Empty when
 * that call succeeded, and before the first. Never NULL. The text stays until the thread's next such call or its end.
 * Other threads' calls do not touch it. Lines of more than 1023 characters end in "...".
 */
const char* unweight_last_error_message(void);

/* ---- what a blob holds ------------------------------------------------------------------------------------------ */

/**
 * The matrices of one tensor, row-major and dense: element (b, n, k) is value number (b * rows + n) * cols + k. Any
 * extent may be 0 (an empty tensor); the product, and each extent, must be below 2^48.
 */
typedef struct unweight_matrix_shape {
  uint64_t batch; /**< number of matrices: experts; 1 for a plain matrix */
  uint64_t rows;  /**< output features (N) */
  uint64_t cols;  /**< input features (K) */
} unweight_matrix_shape;

/** How the payload of a blob is laid out; the values of unweight_blob_info.layout. */
enum unweight_blob_layout {
  UNWEIGHT_LAYOUT_RAW = 0,  /**< row-major bfloat16, chosen when tiles would not be smaller */
  UNWEIGHT_LAYOUT_TILED = 1 /**< 16 x 64 tiles: sign+mantissa plane, 3-bit exponent codes, exceptions */
};

/**
 * What a blob's header and tables say. Later releases may add members at the end. So that old programs and new
 * libraries go together, and the other way round, the caller sets struct_size = sizeof(unweight_blob_info) before the
 * call; the library writes no byte beyond that and sets struct_size to the number of bytes that it filled in.
 */
typedef struct unweight_blob_info {
  uint64_t struct_size;        /**< in: bytes the caller has room for; out: bytes that are filled in */
  unweight_matrix_shape shape; /**< of the tensor */
  uint32_t layout;             /**< an unweight_blob_layout */
  uint16_t version_major;      /**< of the format */
  uint16_t version_minor;      /**< of the format */
  uint64_t blob_bytes;         /**< whole blob: header, tables, padding, payload */
  uint64_t value_bytes;        /**< the tensor it stands for: 2 * batch * rows * cols */
  uint64_t tile_count;         /**< 0 for a raw blob */
  uint64_t exception_count;    /**< values whose exponent is outside their row's palette, in listed tiles */
  uint64_t escaped_tiles;      /**< tiles that store a whole exponent plane instead of a list */
  uint32_t palette_count;      /**< distinct palettes of 8 exponents */
  uint32_t reserved;           /**< 0 */
  uint64_t content_checksum;   /**< XXH3-64 based checksum of the tensor, independent of the layout */
  double bits_per_weight;      /**< 8 * blob_bytes / values; 0 for an empty tensor */
} unweight_blob_info;

/**
 * Validates header and tables of a blob (not the checksums of the payload) and says what it holds.
 *
 * @param blob        the blob; bytes after its end are allowed, info->blob_bytes says where that is
 * @param blob_bytes  how many bytes there are
 * @param info        filled in on success, otherwise left as it is; struct_size set by the caller
 *
 * Errors: 20..25; UNWEIGHT_INVALID_ARGUMENT when struct_size is smaller than the structure was at first (104).
 */
unweight_status unweight_inspect(const void* blob, size_t blob_bytes, unweight_blob_info* info);

/**
 * Checks every checksum of a blob: header, payload, and the decoded tensor, for which it allocates the tensor's size.
 *
 * @param blob              as in unweight_inspect()
 * @param blob_bytes        as in unweight_inspect()
 * @param threads           how many to use; 0: one per logical CPU
 * @param info              as in unweight_inspect(), or NULL
 *
 * Errors: as unweight_inspect().
 */
unweight_status unweight_verify_blob(const void* blob, size_t blob_bytes, unsigned threads, unweight_blob_info* info);

/* ---- encode ----------------------------------------------------------------------------------------------------- */

/**
 * The most bytes that unweight_encode() can produce for a shape: the size of its raw blob, which is the tensor's own
 * size, a header of 256 bytes, and padding to a multiple of 128.
 *
 * @param shape        the tensor's shape
 * @param bound_bytes  set to the bound on success, otherwise to 0
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (shape too large).
 */
unweight_status unweight_encode_bound(const unweight_matrix_shape* shape, size_t* bound_bytes);

/**
 * Encodes a tensor. The blob is a pure function of the values and the shape.
 *
 * @param values          batch * rows * cols bfloat16 bit patterns, row-major; all 65,536 patterns are kept exactly
 * @param value_count     batch * rows * cols
 * @param shape           the tensor's shape
 * @param threads         how many to use; 0: one per logical CPU
 * @param out             receives the blob; after an error its contents are unspecified
 * @param capacity_bytes  size of `out`: unweight_encode_bound() or more, even though the blob is mostly smaller
 * @param blob_bytes      set to the blob's size on success, to the bound after UNWEIGHT_BUFFER_TOO_SMALL, otherwise to
 * 0
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (shape too large), UNWEIGHT_SHAPE_MISMATCH (value_count),
 * UNWEIGHT_BUFFER_TOO_SMALL.
 */
unweight_status unweight_encode(const uint16_t* values, size_t value_count, const unweight_matrix_shape* shape,
                                unsigned threads, void* out, size_t capacity_bytes, size_t* blob_bytes);

/* ---- decode ----------------------------------------------------------------------------------------------------- */

/**
 * Decodes the whole tensor.
 *
 * @param blob              as in unweight_inspect()
 * @param blob_bytes        as in unweight_inspect()
 * @param values            receives the tensor, row-major; after an error its contents are unspecified
 * @param value_count       exactly batch * rows * cols, which is value_bytes / 2 of unweight_inspect()
 * @param threads           how many to use; 0: one per logical CPU
 * @param verify_checksums  non-zero: compare the checksum of the decoded tensor with the recorded one
 *
 * Errors: 20..25, UNWEIGHT_SHAPE_MISMATCH (value_count).
 */
unweight_status unweight_decode(const void* blob, size_t blob_bytes, uint16_t* values, size_t value_count,
                                unsigned threads, int verify_checksums);

/**
 * Decodes rows [row_begin, row_begin + row_count) of the tensor seen as one matrix of batch * rows rows; for streaming
 * a large tensor through a small buffer. Checks the header's checksum and the tables, but no checksum of the payload.
 *
 * @param blob              as in unweight_inspect()
 * @param blob_bytes        as in unweight_inspect()
 * @param row_begin         first row, at most batch * rows
 * @param row_count         how many; may be 0
 * @param values            receives the rows, row-major; after an error its contents are unspecified
 * @param value_count       exactly row_count * cols
 * @param threads           how many to use; 0: one per logical CPU
 *
 * Errors: 20..25, UNWEIGHT_INVALID_ARGUMENT (rows out of range), UNWEIGHT_SHAPE_MISMATCH (value_count).
 */
unweight_status unweight_decode_rows(const void* blob, size_t blob_bytes, uint64_t row_begin, uint64_t row_count,
                                     uint16_t* values, size_t value_count, unsigned threads);

/* ---- slice ------------------------------------------------------------------------------------------------------ */

/** Where slices of a tiled blob may begin: at multiples of a tile's extents. */
#define UNWEIGHT_SLICE_ROWS 16
#define UNWEIGHT_SLICE_COLS 64

/**
 * A part of a tensor: matrices [batch_begin, batch_end), rows [row_begin, row_end), columns [col_begin, col_end). None
 * may be empty. In a tiled blob rows begin and end at multiples of UNWEIGHT_SLICE_ROWS, columns at multiples of
 * UNWEIGHT_SLICE_COLS; either may also end where the tensor does. In a raw blob any range is allowed.
 */
typedef struct unweight_slice_range {
  uint64_t batch_begin, batch_end;
  uint64_t row_begin, row_end;
  uint64_t col_begin, col_end;
} unweight_slice_range;

/**
 * Cuts a blob out of a blob by copying its tiles: the shards of tensor parallelism along rows (N) and columns (K), or
 * some of the experts. Verifies the source's payload checksum first. The slice has the layout and the palettes of the
 * whole. It is never larger than the source blob, so a buffer of that size always does, in one call.
 *
 * @param blob              as in unweight_inspect()
 * @param blob_bytes        as in unweight_inspect()
 * @param range             the part to cut out
 * @param out               receives the slice, or NULL together with capacity_bytes == 0: only slice_bytes is wanted.
 *                          That call takes as long as the other. After an error nothing has been written.
 * @param capacity_bytes    size of `out`
 * @param slice_bytes       set to the slice's size on success and after UNWEIGHT_BUFFER_TOO_SMALL, otherwise to 0
 *
 * Errors: 20..25, UNWEIGHT_INVALID_ARGUMENT (range), UNWEIGHT_BUFFER_TOO_SMALL.
 */
unweight_status unweight_slice(const void* blob, size_t blob_bytes, const unweight_slice_range* range, void* out,
                               size_t capacity_bytes, size_t* slice_bytes);

/* ---- the distribution form ----------------------------------------------------------------------------------------
 */

/* The same tensors, entropy-coded for storage and transfer: docs/DISTRIBUTION.md. Its blobs are other bytes, with
 * functions of their own. To turn a blob of one form into the other, decode it and encode the values: the result is the
 * same as if they had never been compressed. */

/** How the payload of a distribution blob is laid out; the values of unweight_distribution_info.layout. */
enum unweight_distribution_layout {
  UNWEIGHT_DISTRIBUTION_RAW = 0,  /**< row-major bfloat16, chosen when coding would not make it smaller */
  UNWEIGHT_DISTRIBUTION_CODED = 1 /**< blocks of interleaved rANS streams */
};

/** What a distribution blob's header and tables say. struct_size is used as in unweight_blob_info. */
typedef struct unweight_distribution_info {
  uint64_t struct_size;        /**< in: bytes the caller has room for; out: bytes that are filled in */
  unweight_matrix_shape shape; /**< of the tensor */
  uint32_t layout;             /**< an unweight_distribution_layout */
  uint16_t version_major;      /**< of the format */
  uint16_t version_minor;      /**< of the format */
  uint64_t blob_bytes;         /**< whole blob: header, tables, padding, payload */
  uint64_t value_bytes;        /**< the tensor it stands for: 2 * batch * rows * cols */
  uint64_t block_count;        /**< 0 for a raw blob */
  uint64_t escape_count;       /**< values that no symbol stands for */
  uint32_t class_count;        /**< tables of frequencies */
  uint32_t scale_count;        /**< different scales of rows */
  uint64_t content_checksum;   /**< of the tensor; the same as in the runtime form */
  double bits_per_weight;      /**< 8 * blob_bytes / values; 0 for an empty tensor */
} unweight_distribution_info;

/**
 * As unweight_inspect(), for a distribution blob. Errors: 20..25; UNWEIGHT_INVALID_ARGUMENT when struct_size is smaller
 * than the structure was at first (96).
 */
unweight_status unweight_distribution_inspect(const void* blob, size_t blob_bytes, unweight_distribution_info* info);

/** As unweight_verify_blob(), for a distribution blob. Errors: as unweight_distribution_inspect(). */
unweight_status unweight_distribution_verify_blob(const void* blob, size_t blob_bytes, unsigned threads,
                                                  unweight_distribution_info* info);

/** As unweight_encode(), into a distribution blob; unweight_encode_bound() bounds this form too. */
unweight_status unweight_distribution_encode(const uint16_t* values, size_t value_count,
                                             const unweight_matrix_shape* shape, unsigned threads, void* out,
                                             size_t capacity_bytes, size_t* blob_bytes);

/** As unweight_decode(), for a distribution blob. */
unweight_status unweight_distribution_decode(const void* blob, size_t blob_bytes, uint16_t* values, size_t value_count,
                                             unsigned threads, int verify_checksums);

/**
 * As unweight_decode_rows(), for a distribution blob. Its blocks are decoded whole: ranges of whole strips of 16 rows
 * (more where rows have at most 512 columns) waste nothing.
 */
unweight_status unweight_distribution_decode_rows(const void* blob, size_t blob_bytes, uint64_t row_begin,
                                                  uint64_t row_count, uint16_t* values, size_t value_count,
                                                  unsigned threads);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
