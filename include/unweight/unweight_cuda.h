/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of the CUDA part: blobs on the GPU, as in <unweight/cuda.hpp>, where decoding, multiplication and its
 * determinism are described. A shared libunweight that was built with its CUDA part has these functions; otherwise
 * they are in libunweight_cuda.a.
 *
 * What <unweight/unweight.h> says holds here too: units, alignment, errors (all functions below can also return
 * UNWEIGHT_NO_DEVICE and UNWEIGHT_CUDA), threads. Besides:
 *  - Memory. Device memory is the caller's; no function below allocates any. An unweight_device_blob is the library's,
 *    a few words on the host.
 *  - Streams. `stream` is a cudaStream_t or CUstream of the blob's device, which must be the current one; NULL is the
 *    default stream. Work is enqueued, not waited for, and may be captured into a CUDA graph; errors of execution
 *    appear later, on the stream.
 *  - Structures may grow at the end. The caller sets struct_size to the structure's sizeof; members beyond it count as
 *    0, and are not written. Members that the library does not know, and reserved ones, must be 0.
 */
#ifndef UNWEIGHT_UNWEIGHT_CUDA_H
#define UNWEIGHT_UNWEIGHT_CUDA_H

#include <stddef.h>
#include <stdint.h>
#include <unweight/unweight.h>

#pragma GCC visibility push(default) /* the library hides all other symbols */
#ifdef __cplusplus
extern "C" {
#endif

/* ---- blobs ------------------------------------------------------------------------------------------------------ */

/** Alignment of a blob in device memory, in bytes; cudaMalloc() gives more. */
#define UNWEIGHT_DEVICE_BLOB_ALIGNMENT 128

/** A blob in device memory whose header and tables have been validated. It owns no device memory. */
typedef struct unweight_device_blob unweight_device_blob;

/**
 * Validates header and tables of a blob and that `device_bytes` is an address on the current device, and loads the
 * kernels. Reads no device memory: the caller has copied the blob there, or has enqueued the copy. Not to be called
 * while a stream of this thread is being captured.
 *
 * @param blob          the blob in host memory; not needed after the call
 * @param blob_bytes    how many bytes there are
 * @param device_bytes  its copy, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT; may be NULL for an empty tensor
 * @param device_blob   set to the new object, otherwise to NULL; to be destroyed with unweight_device_blob_destroy()
 *
 * Errors: 20..25; UNWEIGHT_INVALID_ARGUMENT (alignment, not device memory, beyond the kernels' limits).
 */
unweight_status unweight_device_blob_create(const void* blob, size_t blob_bytes, const void* device_bytes,
                                            unweight_device_blob** device_blob);

/**
 * As unweight_device_blob_create(), for a blob of which the host has no copy: header and tables are copied from the
 * device. Waits for `stream`, on which the blob may have been written.
 *
 * @param device_bytes   device memory that begins with the blob, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT
 * @param size_bytes     how many bytes there are; those that follow the blob are ignored
 * @param stream         see above; must not be capturing
 * @param device_blob    as in unweight_device_blob_create()
 *
 * Errors: as unweight_device_blob_create().
 */
unweight_status unweight_device_blob_open(const void* device_bytes, size_t size_bytes, void* stream,
                                          unweight_device_blob** device_blob);

/** The tensor's shape. */
unweight_status unweight_device_blob_shape(const unweight_device_blob* device_blob, unweight_matrix_shape* shape);

/** Frees the object, not the device memory. Work that has been enqueued is not touched. NULL does nothing. */
void unweight_device_blob_destroy(unweight_device_blob* device_blob);

/**
 * Decodes the whole tensor: element (b, n, k) goes to values[(b * rows + n) * row_stride + k].
 *
 * @param device_blob  the blob
 * @param values       device memory of bfloat16 bit patterns; fastest when it and the rows are aligned to 16 bytes
 * @param row_stride   in values, at least cols
 * @param stream       see above
 */
unweight_status unweight_device_decode(const unweight_device_blob* device_blob, uint16_t* values, uint64_t row_stride,
                                       void* stream);

/**
 * Decodes rows of the tensor seen as one matrix of batch * rows rows, in any order, also repeatedly:
 * values[i * row_stride + k] = W[row_numbers[i], k]. A row number outside of the tensor gives a row of NaN (0x7fff).
 *
 * @param device_blob  the blob
 * @param row_numbers  device memory, aligned to 8 bytes
 * @param row_count    how many row numbers
 * @param values       device memory of bfloat16 bit patterns; fastest when it and the rows are aligned to 4 bytes
 * @param row_stride   in values, at least cols
 * @param stream       see above
 */
unweight_status unweight_device_gather_rows(const unweight_device_blob* device_blob, const int64_t* row_numbers,
                                            size_t row_count, uint16_t* values, uint64_t row_stride, void* stream);

/**
 * Asks for bytes of the blob in the device's L2 cache. Ranges are clipped to the blob.
 *
 * @param device_blob  the blob
 * @param begin_byte   first byte
 * @param size_bytes   how many
 * @param stream       see above
 */
unweight_status unweight_device_prefetch_l2(const unweight_device_blob* device_blob, uint64_t begin_byte,
                                            uint64_t size_bytes, void* stream);

/* ---- matrix multiplication for few tokens: Y[M, N] = X[M, K] * W[N, K]^T + bias[N] ------------------------------- */

/** Most tokens (M) of unweight_matmul(). */
#define UNWEIGHT_MAX_MATMUL_TOKENS 65536

/** How a multiplication runs. The bits of Y depend on strips, split and warpgroup alone, not on the other members. */
typedef struct unweight_matmul_config {
  uint64_t struct_size;
  uint32_t strips;           /**< strips of 16 rows that a block works on at a time: 1, 2, 4; with warpgroup 4, 8, 16 */
  uint32_t stages;           /**< slots of the ring that weights are loaded into: 2 to 8 */
  uint32_t split;            /**< 0 or 1: split along K what would leave multiprocessors idle; needs a workspace */
  uint32_t dependent_launch; /**< 0 or 1: programmatic dependent launch */
  uint32_t warpgroup;        /**< 0 or 1: four warps multiply together; required for more than 32 tokens */
  uint32_t reserved;         /**< 0 */
} unweight_matmul_config;

/** Operands. All addresses are device memory, values aligned to 2 bytes. */
typedef struct unweight_matmul_arguments {
  uint64_t struct_size;
  const uint16_t* x;    /**< [tokens, K]; fastest when it and its rows are aligned to 16 bytes */
  uint64_t x_stride;    /**< values between rows of x, at least K */
  uint16_t* y;          /**< [tokens, N]; nothing else is written */
  uint64_t y_stride;    /**< values between rows of y, at least N */
  const uint16_t* bias; /**< [N], added before rounding; or NULL */
  uint64_t matrix;      /**< which matrix of the blob's batch */
  void* workspace;      /**< unweight_matmul_workspace_bytes() for a config with split; otherwise not used */
  uint32_t tokens;      /**< 0 to UNWEIGHT_MAX_MATMUL_TOKENS */
  uint32_t reserved;    /**< 0 */
} unweight_matmul_arguments;

/**
 * Whether a configuration fits a number of tokens: UNWEIGHT_OK, or UNWEIGHT_INVALID_ARGUMENT with the reason.
 *
 * @param device_blob  the blob
 * @param tokens       M
 * @param config       the configuration
 */
unweight_status unweight_matmul_can_implement(const unweight_device_blob* device_blob, uint32_t tokens,
                                              const unweight_matmul_config* config);

/**
 * A configuration that suits the shape, found by rules, not by measuring; never with dependent_launch, which the caller
 * may set. It may need a workspace.
 *
 * @param device_blob  the blob
 * @param tokens       M
 * @param config       filled in on success; struct_size set by the caller
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (tokens, struct_size).
 */
unweight_status unweight_matmul_choose_config(const unweight_device_blob* device_blob, uint32_t tokens,
                                              unweight_matmul_config* config);

/**
 * Bytes of device memory, aligned to 256, that a configuration with split needs; the same for all blobs on a device.
 * Zeroed once, before their first use. Calls that may run at the same time need one each.
 *
 * @param device_blob      the blob
 * @param workspace_bytes  set to the size on success, otherwise to 0
 */
unweight_status unweight_matmul_workspace_bytes(const unweight_device_blob* device_blob, size_t* workspace_bytes);

/**
 * Multiplies: enqueues one kernel, allocates nothing.
 *
 * @param device_blob  W
 * @param arguments    the operands
 * @param config       a configuration that unweight_matmul_can_implement() accepts
 * @param stream       see above
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (strides, alignment, NULL, matrix, tokens, config).
 */
unweight_status unweight_matmul(const unweight_device_blob* device_blob, const unweight_matmul_arguments* arguments,
                                const unweight_matmul_config* config, void* stream);

/* ---- CUDA graphs ------------------------------------------------------------------------------------------------ */

/* For callers that give each graph a workspace of its own, since graphs may be replayed at the same time. */

/**
 * Which capture a stream takes part in.
 *
 * @param stream   see above
 * @param capture  set to the capture's number, unique in the process; to 0 when the stream is not being captured
 */
unweight_status unweight_stream_capture(void* stream, uint64_t* capture);

/**
 * Has a flag set when a graph is gone: the one that the stream is being captured into, and everything instantiated from
 * it. Until then `released` must stay valid.
 *
 * @param stream    a stream that is being captured
 * @param released  set to 0 now, and to 1 then, by any thread
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (not being captured).
 */
unweight_status unweight_stream_capture_lease(void* stream, uint32_t* released);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
