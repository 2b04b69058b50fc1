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
#include <unweight/unweight_plan.h>

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
 * Makes a raw blob of a tiled one, for a weight that a plan keeps raw. Its values are decoded on the stream; its header
 * is zeros there, since no kernel reads it. The tiled blob is not needed when that is done.
 *
 * @param device_blob   the tiled blob
 * @param device_bytes  device memory of unweight_encode_bound() bytes, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT
 * @param stream        see above
 * @param raw_blob      set to the new object, otherwise to NULL
 */
unweight_status unweight_device_decode_to_raw(const unweight_device_blob* device_blob, void* device_bytes, void* stream,
                                              unweight_device_blob** raw_blob);

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

/* ---- matrix multiplication: Y[M, N] = X[M, K] * W[N, K]^T + bias[N] ---------------------------------------------- */

/** Most tokens (M) of unweight_matmul(). */
#define UNWEIGHT_MAX_MATMUL_TOKENS 65536

/** How a multiplication runs. The bits of Y depend on strips, split and warpgroup alone, not on the other members. */
typedef struct unweight_matmul_config {
  uint64_t struct_size;
  uint32_t strips;           /**< strips of 16 rows that a block works on at a time: 1, 2, 4; with warpgroup 4, 8, 16;
                                  for more than 64 tokens 8, or, up to 128, 12 */
  uint32_t stages;           /**< slots of the ring that weights are loaded into: 2 to 8; not used for more than 64
                                  tokens but with 12 strips */
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

/* ---- any number of tokens, by whichever pipeline a plan has chosen ----------------------------------------------- */

/** A weight, ready to be multiplied with: as Linear in <unweight/pipelines.hpp>. It owns no device memory. */
typedef struct unweight_linear unweight_linear;

/** What unweight_linear_create() goes by. All members may be 0. */
typedef struct unweight_linear_options {
  uint64_t struct_size;
  const unweight_plan* plan;               /**< asked first; not needed after the call; or NULL */
  const unweight_matmul_config* overrides; /**< fused configurations that go before the plan, one after the other; each
                                                with its struct_size, all of one size */
  const uint32_t* override_tokens;         /**< the numbers of tokens whose buckets they are for */
  size_t override_count;                   /**< how many */
  uint32_t dependent_launch;               /**< 0 or 1: the fused kernel runs with programmatic dependent launch */
  uint32_t no_scratch;                     /**< 0 or 1: calls will bring no scratch, nothing is decoded to memory */
  uint32_t no_cublas;                      /**< 0 or 1: cuBLASLt is not used */
  uint32_t no_builtin_tables;              /**< 0 or 1: the library's own tables are not asked */
  uint64_t reserved;                       /**< 0 */
} unweight_linear_options;

/**
 * Looks up a choice for every number of tokens. Not to be called while a stream of this thread is being captured.
 *
 * @param device_blob  the weight
 * @param options      or NULL
 * @param linear       set to the new object, otherwise to NULL; to be destroyed with unweight_linear_destroy()
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (an override, or an entry of the plan for this weight, is not legal).
 */
unweight_status unweight_linear_create(const unweight_device_blob* device_blob, const unweight_linear_options* options,
                                       unweight_linear** linear);

/**
 * The same for another weight of the same shape, layout and class of exceptions, without looking anything up.
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT.
 */
unweight_status unweight_linear_for_weight(const unweight_linear* linear, const unweight_device_blob* device_blob,
                                           unweight_linear** other);

/** Frees the object. Work that has been enqueued is not touched. NULL does nothing. */
void unweight_linear_destroy(unweight_linear* linear);

/**
 * Sizes of the device memory that unweight_linear_run() needs for up to `most_tokens` tokens, aligned to 256 bytes. One
 * workspace and one scratch of the largest sizes may serve all weights of a device whose calls do not run at the same
 * time. The workspace is zeroed once.
 *
 * @param linear           the weight
 * @param most_tokens      1 to UNWEIGHT_MAX_MATMUL_TOKENS
 * @param workspace_bytes  set to the workspace's size
 * @param scratch_bytes    set to the scratch's size; 0 where nothing is decoded to memory
 */
unweight_status unweight_linear_memory(const unweight_linear* linear, uint32_t most_tokens, size_t* workspace_bytes,
                                       size_t* scratch_bytes);

/**
 * What runs for a number of tokens, in words: "decoded, cuBLASLt algorithm 1c8d3a70 (plan, 4096 tokens)".
 *
 * @param linear          the weight
 * @param tokens          1 to UNWEIGHT_MAX_MATMUL_TOKENS
 * @param text            receives the text and a terminating zero, cut where there is no room
 * @param capacity_bytes  size of `text`, at least 1
 */
unweight_status unweight_linear_describe(const unweight_linear* linear, uint32_t tokens, char* text,
                                         size_t capacity_bytes);

/** What could not be used of the plan and the tables, a line each, in the same way; empty if nothing. */
unweight_status unweight_linear_notes(const unweight_linear* linear, char* text, size_t capacity_bytes);

/**
 * Multiplies: Y = X * W^T + bias. Allocates nothing and may be captured; each number of tokens should have run once
 * before.
 *
 * @param linear     W
 * @param arguments  the operands; their workspace as unweight_linear_memory() says
 * @param scratch    as unweight_linear_memory() says; or NULL
 * @param stream     see above
 *
 * Errors: as unweight_matmul(); UNWEIGHT_INVALID_ARGUMENT where a scratch is needed and missing.
 */
unweight_status unweight_linear_run(const unweight_linear* linear, const unweight_matmul_arguments* arguments,
                                    uint16_t* scratch, void* stream);

/* ---- which choice, without anything that runs -------------------------------------------------------------------- */

/* For callers with multiplications of their own for decoded weights, and for tools. Nothing here needs a GPU, but where
 * it says so. */

/** How to multiply: as Pipeline in <unweight/plan.hpp>. */
enum {
  UNWEIGHT_PIPELINE_FUSED = 0,   /**< unweight_matmul() */
  UNWEIGHT_PIPELINE_DECODED = 1, /**< unweight_device_decode(), then a multiplication with dense weights */
  UNWEIGHT_PIPELINE_RAW = 2      /**< a multiplication with the dense weights of a raw blob */
};

/** Where a choice comes from: as ChoiceSource in <unweight/plan.hpp>. */
enum {
  UNWEIGHT_CHOICE_OVERRIDE = 0,      /**< the caller's own */
  UNWEIGHT_CHOICE_PLAN = 1,          /**< the caller's plan */
  UNWEIGHT_CHOICE_BUILTIN_TABLE = 2, /**< the library's table for this GPU */
  UNWEIGHT_CHOICE_COST_MODEL = 3,    /**< rules */
  UNWEIGHT_CHOICE_FALLBACK = 4       /**< a configuration that is legal for every problem */
};

/** How many of a tiled blob's values are exceptions: as ExceptionClass in <unweight/plan.hpp>. */
enum { UNWEIGHT_EXCEPTIONS_USUAL = 0, UNWEIGHT_EXCEPTIONS_MANY = 1, UNWEIGHT_EXCEPTIONS_DENSE = 2 };

/** What of a weight its choices depend on. */
typedef struct unweight_weight_class {
  uint64_t struct_size; /**< set by the caller */
  uint64_t rows;        /**< N; of a batch of matrices, those of one */
  uint64_t cols;        /**< K */
  uint32_t layout;      /**< UNWEIGHT_LAYOUT_RAW or UNWEIGHT_LAYOUT_TILED */
  uint32_t exceptions;  /**< UNWEIGHT_EXCEPTIONS_*; of a raw blob 0 */
  uint64_t reserved;    /**< 0 */
} unweight_weight_class;

/**
 * That of a blob on the GPU.
 *
 * @param device_blob   the blob
 * @param weight_class  filled in on success; struct_size set by the caller
 */
unweight_status unweight_device_blob_class(const unweight_device_blob* device_blob,
                                           unweight_weight_class* weight_class);

/** A cublaslt of unweight_device_facts: whatever algorithm a plan names is what the caller wants to know. */
#define UNWEIGHT_ANY_CUBLASLT UINT64_MAX

/** What of a device choices depend on. */
typedef struct unweight_device_facts {
  uint64_t struct_size;
  const char* gpu;          /**< as the driver names it, "NVIDIA H200"; NULL: ask the current device */
  uint32_t multiprocessors; /**< 1 or more; with gpu == NULL 0 */
  uint32_t reserved;        /**< 0 */
  uint64_t cublaslt;        /**< version of the cuBLASLt that will follow the choice, by whose algorithms a plan's are
                                 replaced if it was made with another one; UNWEIGHT_ANY_CUBLASLT; 0: none, only fused
                                 choices */
} unweight_device_facts;

/** What was chosen, and where to write what is longer. */
typedef struct unweight_choice {
  uint64_t struct_size;           /**< set by the caller */
  unweight_matmul_config* config; /**< set by the caller, or NULL: receives the configuration of the fused kernel; of
                                     the other pipelines, that for operands which do not suit them. Its struct_size is
                                     set by the caller, too */
  char* notes;                    /**< set by the caller, or NULL: receives what could not be used of the plan and the
                                       tables, and why, a line each, and a terminating zero; cut where there is no room,
                                       empty if nothing */
  size_t notes_bytes;             /**< set by the caller: size of `notes` */
  uint32_t pipeline;              /**< UNWEIGHT_PIPELINE_* */
  uint32_t source;                /**< UNWEIGHT_CHOICE_* */
  uint32_t first_tokens;          /**< it holds from here ... */
  uint32_t last_tokens;           /**< ... to here */
  uint32_t cell_tokens;           /**< the cell of the plan or table that it stands in; 0: none */
  uint32_t keeps_raw;             /**< 1: the plan suits the device and keeps the tensor of the name given raw, so that
                                       its layout is to become raw when it is loaded; otherwise 0 */
  uint64_t algorithm[8];          /**< of decoded and raw: the words of a cublasLtMatmulAlgo_t; all 0: the first that
                                       cuBLASLt proposes */
} unweight_choice;

/**
 * What unweight_linear_run() would do for a number of tokens, by the same search: overrides, the plan, the library's
 * table, rules. Where the operands do not suit cuBLASLt, or that has nothing for them, the fused kernel runs in place
 * of it. What is found holds for first_tokens to last_tokens.
 *
 * @param weight       one matrix; for a batch of several, options->no_scratch says what Linear goes by
 * @param device       the device; or NULL: the current one, with UNWEIGHT_ANY_CUBLASLT
 * @param options      as for unweight_linear_create(), or NULL
 * @param tensor_name  for keeps_raw; or NULL
 * @param tokens       1 to UNWEIGHT_MAX_MATMUL_TOKENS
 * @param choice       filled in on success
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (what is out of range; an override, or an entry of the plan for this weight, that
 * is not legal); UNWEIGHT_NO_DEVICE and UNWEIGHT_CUDA only where the current device is asked.
 */
unweight_status unweight_choose(const unweight_weight_class* weight, const unweight_device_facts* device,
                                const unweight_linear_options* options, const char* tensor_name, uint32_t tokens,
                                unweight_choice* choice);

/* ---- the distribution form -------------------------------------------------------------------------------------- */

/** A distribution blob in device memory whose header and tables have been validated. It owns no device memory. */
typedef struct unweight_distribution_device_blob unweight_distribution_device_blob;

/**
 * How many bytes of a distribution blob unweight_distribution_device_blob_create() needs: those before its stream.
 *
 * @param header        the blob's first 256 bytes, or more
 * @param header_bytes  how many there are
 * @param front_bytes   set to the number on success, otherwise to 0
 */
unweight_status unweight_distribution_front_bytes(const void* header, size_t header_bytes, uint64_t* front_bytes);

/**
 * Validates header and tables of a distribution blob and that `device_bytes` is an address on the current device, and
 * loads the kernels. Reads no device memory.
 *
 * @param front         the blob in host memory, or as much of it as unweight_distribution_front_bytes() says
 * @param front_bytes   how many bytes there are
 * @param device_bytes  the whole blob in device memory, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT
 * @param device_blob   set to the new object, otherwise to NULL; to be destroyed with
 *                      unweight_distribution_device_blob_destroy()
 */
unweight_status unweight_distribution_device_blob_create(const void* front, size_t front_bytes,
                                                         const void* device_bytes,
                                                         unweight_distribution_device_blob** device_blob);

/** Frees the object, not the device memory. NULL does nothing. */
void unweight_distribution_device_blob_destroy(unweight_distribution_device_blob* device_blob);

/**
 * Decodes the whole tensor, whatever the blob's bytes are without reading or writing elsewhere.
 *
 * @param device_blob  the blob
 * @param values       device memory of bfloat16 bit patterns
 * @param row_stride   in values, at least cols
 * @param status       a word of device memory that the caller has set to 0; what it says in the end,
 *                     unweight_distribution_check_status() knows
 * @param stream       see above
 */
unweight_status unweight_distribution_device_decode(const unweight_distribution_device_blob* device_blob,
                                                    uint16_t* values, uint64_t row_stride, uint64_t* status,
                                                    void* stream);

/** The error that a status word stands for: UNWEIGHT_OK, UNWEIGHT_CORRUPT_PAYLOAD, UNWEIGHT_CHECKSUM_MISMATCH, ... */
unweight_status unweight_distribution_check_status(uint64_t status);

/** What came of a transcoding. Memory that the device can write and the host read, aligned to 8 bytes. */
typedef struct unweight_transcode_outcome {
  uint64_t status;     /**< for unweight_distribution_check_status() */
  uint64_t blob_bytes; /**< of the runtime blob: after either half */
  uint8_t header[256]; /**< of the runtime blob: after the second half */
} unweight_transcode_outcome;

/**
 * Bytes of device memory, aligned to 256, that transcoding to the runtime form needs.
 *
 * @param device_blob      the blob
 * @param slab_bytes       of decoded values at a time; a larger tensor is decoded three times. 0: the whole tensor
 * @param workspace_bytes  set to the size on success, otherwise to 0
 */
unweight_status unweight_transcode_workspace_bytes(const unweight_distribution_device_blob* device_blob,
                                                   uint64_t slab_bytes, size_t* workspace_bytes);

/** The first half: decodes, and finds out how large the runtime blob is. Enqueued. */
unweight_status unweight_transcode_plan(const unweight_distribution_device_blob* device_blob, void* workspace,
                                        uint64_t slab_bytes, unweight_transcode_outcome* outcome, void* stream);

/**
 * The second half, with the workspace as the first one has left it: writes the runtime blob. Enqueued.
 *
 * @param device_blob     the blob
 * @param workspace       see above
 * @param slab_bytes      as before
 * @param out             device memory, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT
 * @param capacity_bytes  of out; where it is less than blob_bytes nothing is written, and the status says so
 * @param outcome         see above
 * @param stream          see above
 */
unweight_status unweight_transcode_finish(const unweight_distribution_device_blob* device_blob, void* workspace,
                                          uint64_t slab_bytes, void* out, uint64_t capacity_bytes,
                                          unweight_transcode_outcome* outcome, void* stream);

/** The runtime blob that a transcoding has written to `device_bytes`; see unweight_device_blob_create(). */
unweight_status unweight_transcoded_blob(const unweight_transcode_outcome* outcome, const void* device_bytes,
                                         unweight_device_blob** device_blob);

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/** A tensor that has been loaded. Everything but `data` and `blob` is valid during the callback alone. */
typedef struct unweight_loaded_tensor {
  uint64_t struct_size;
  const char* file;           /**< of the source, relative to its folder */
  const char* name;           /**< of the tensor */
  const char* dtype;          /**< of the source tensor, as safetensors files name it: "BF16" */
  const uint64_t* shape;      /**< of the source tensor: `rank` extents */
  uint64_t rank;              /**< number of extents */
  void* data;                 /**< device memory: the runtime blob, or the values; NULL where there are none */
  uint64_t size_bytes;        /**< of data */
  unweight_device_blob* blob; /**< of a blob, else NULL; the callback's, who destroys it some time */
  const char* original_file;  /**< of an alias, which has another tensor's data, delivered before; else NULL */
  const char* original_name;  /**< likewise */
} unweight_loaded_tensor;

/** What a program gives to unweight_load(). All callbacks are called on the thread that loads. */
typedef struct unweight_load_options {
  uint64_t struct_size;
  void* user; /**< handed to the callbacks */
  /** Receives a tensor; 0 goes on, anything else ends loading with UNWEIGHT_CANCELLED. Required. */
  int (*deliver)(void* user, const unweight_loaded_tensor* tensor);
  /** Device memory for a tensor, aligned to UNWEIGHT_DEVICE_BLOB_ALIGNMENT, or NULL. NULL: cudaMalloc(). */
  void* (*allocate)(void* user, const char* file, const char* name, uint64_t size_bytes);
  void (*release)(void* user, void* memory); /**< takes memory back that was not delivered */
  uint64_t host_buffer_bytes;                /**< page-locked memory that files are read into; 0: 128 MiB */
  uint64_t device_bytes;                     /**< beside what is delivered; 0: the largest tensor's values */
  uint32_t threads;                          /**< that read files; 0: 4 */
  uint32_t no_verify;                        /**< 1: payload checksums of runtime blobs are not checked */
  uint64_t reserved;                         /**< 0 */
} unweight_load_options;

/**
 * Loads a bundle of either profile, or a plain checkpoint, to the current device: blobs as runtime blobs, all else as
 * it is. Returns when everything has been delivered. A shared libunweight or libunweight_cuda.a has this function, not
 * the codec alone.
 *
 * @param path     of the folder, or of a safetensors file
 * @param options  what to do with the tensors
 */
unweight_status unweight_load(const char* path, const unweight_load_options* options);

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
