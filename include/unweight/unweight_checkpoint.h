/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of whole checkpoints, as in <unweight/checkpoint.hpp>, which says what these functions guarantee:
 * sources are only read, output appears when it is complete and checked, interrupted work is continued by the same
 * call.
 *
 * What <unweight/unweight.h> says holds here too: errors, threads, memory. Besides:
 *  - Paths are as the operating system takes them, terminated by NUL. None may be NULL or empty.
 *  - Structures may grow at the end. The caller sets struct_size to the structure's sizeof. Of options, members beyond
 *    it count as 0, and members that the library does not know, and reserved ones, must be 0; options may be NULL, as
 * if all members were 0. Of reports, the library writes no byte beyond struct_size and sets it to the number of bytes
 *    that it filled in; they may be NULL.
 *  - Callbacks are called from one thread at a time, but not always from the caller's. They must not throw, and must
 * not call the functions below. Their structures and strings are the library's, valid until they return.
 */
#ifndef UNWEIGHT_UNWEIGHT_CHECKPOINT_H
#define UNWEIGHT_UNWEIGHT_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>
#include <unweight/unweight.h>

#pragma GCC visibility push(default) /* the library hides all other symbols */
#ifdef __cplusplus
extern "C" {
#endif

/* ---- progress --------------------------------------------------------------------------------------------------- */

/** At most about ten times a second, and once at the end. */
typedef struct unweight_progress {
  uint64_t struct_size;   /**< of the library's structure: later releases may have more members */
  uint64_t bytes_done;    /**< source bytes finished, those of a continued run included */
  uint64_t bytes_total;   /**< source bytes in all */
  uint64_t bytes_resumed; /**< the part of bytes_done that an earlier run had finished */
  uint64_t tensors_done;  /**< tensors finished */
  uint64_t tensors_total; /**< tensors in all */
  const char* current;    /**< the tensor or file finished last */
} unweight_progress;

/** Returns 0 to go on; otherwise the call ends with UNWEIGHT_CANCELLED, and can be continued later. */
typedef int (*unweight_progress_callback)(const unweight_progress* progress, void* user_data);

/** Something that the caller should know and that is no error: one line without a newline. */
typedef void (*unweight_warning_callback)(const char* message, void* user_data);

/* ---- bundles ---------------------------------------------------------------------------------------------------- */

/** The form of a bundle's blobs. */
enum unweight_profile {
  UNWEIGHT_PROFILE_RUNTIME = 0,     /**< about 11.25 bits a weight, read by GPU kernels as they are */
  UNWEIGHT_PROFILE_DISTRIBUTION = 1 /**< about 10.5 bits a weight, for storage and transfer */
};

/** How to compress or transcode. */
typedef struct unweight_compress_options {
  uint64_t struct_size;
  uint32_t profile;                    /**< an unweight_profile, of the new bundle */
  uint32_t threads;                    /**< 0: one per logical CPU */
  uint32_t no_verify;                  /**< 1: do not decode every blob again before it is written */
  uint32_t shard_index;                /**< this process's share of the work, below shard_count; not of transcoding */
  uint32_t shard_count;                /**< 0 and 1: all of it */
  uint32_t reserved;                   /**< 0 */
  unweight_progress_callback progress; /**< or NULL */
  unweight_warning_callback warning;   /**< or NULL */
  void* user_data;                     /**< handed to the callbacks */
} unweight_compress_options;

/** Totals of a compression; of a transcoding, as though the source had been compressed. */
typedef struct unweight_compress_report {
  uint64_t struct_size;
  uint64_t source_bytes;      /**< all files */
  uint64_t bundle_bytes;      /**< all files; 0 until the bundle is finished */
  uint64_t tensors;           /**< of all kinds */
  uint64_t tensors_blob;      /**< stored as blobs */
  uint64_t tensors_raw;       /**< stored unchanged */
  uint64_t tensors_alias;     /**< not stored: bit-identical to another one */
  uint64_t blob_value_bytes;  /**< source bytes of the tensors stored as blobs */
  uint64_t blob_bytes;        /**< their blobs */
  uint64_t bytes_resumed;     /**< source bytes that an earlier, interrupted run had finished */
  uint64_t peak_memory_bytes; /**< the process's peak resident set */
  double seconds;             /**< of this call */
  uint32_t profile;           /**< an unweight_profile */
  uint32_t finished;          /**< 1: the bundle stands under its final name */
  uint32_t verified;          /**< 1: every blob was decoded and compared before it was written */
  uint32_t reserved;          /**< 0 */
} unweight_compress_report;

/**
 * Compresses a checkpoint into a bundle.
 *
 * @param source   a folder, or one .safetensors file
 * @param out      the bundle, which must not exist
 * @param options  or NULL
 * @param report   filled in on success, or NULL
 *
 * Errors: 30..35, 40..44, UNWEIGHT_INVALID_ARGUMENT, UNWEIGHT_CANCELLED.
 */
unweight_status unweight_compress_checkpoint(const char* source, const char* out,
                                             const unweight_compress_options* options,
                                             unweight_compress_report* report);

/**
 * Joins the shares of compressions with shard_count above 1, from options alike but for shard_index.
 * Errors: those of unweight_compress_checkpoint(); UNWEIGHT_BAD_CHECKPOINT names missing shares.
 */
unweight_status unweight_finish_compress(const char* source, const char* out, const unweight_compress_options* options,
                                         unweight_compress_report* report);

/**
 * Makes a bundle of the other profile: the bytes that compressing the source with options->profile gives.
 * Errors: 20..25 and those of unweight_compress_checkpoint(); UNWEIGHT_INVALID_ARGUMENT when the bundle has that
 * profile.
 */
unweight_status unweight_transcode_bundle(const char* bundle, const char* out, const unweight_compress_options* options,
                                          unweight_compress_report* report);

/** How to decompress or verify. */
typedef struct unweight_restore_options {
  uint64_t struct_size;
  uint32_t threads;                    /**< 0: one per logical CPU */
  uint32_t reserved;                   /**< 0 */
  unweight_progress_callback progress; /**< or NULL */
  void* user_data;                     /**< handed to the callback */
} unweight_restore_options;

/** Totals of a decompression or verification. */
typedef struct unweight_restore_report {
  uint64_t struct_size;
  uint64_t files;             /**< of the source */
  uint64_t tensors;           /**< of the source; 0 after a decompression */
  uint64_t bytes;             /**< of the source: restored, or covered */
  uint64_t peak_memory_bytes; /**< the process's peak resident set */
  double seconds;             /**< of this call */
} unweight_restore_report;

/**
 * Restores the source of a bundle, byte for byte: every file is checked against its recorded SHA-256 before `out`
 * appears.
 *
 * @param bundle   of either profile
 * @param out      the folder, which must not exist
 * @param options  or NULL
 * @param report   filled in on success, or NULL
 *
 * Errors: 20..25, 30..35, 40..44, UNWEIGHT_CANCELLED.
 */
unweight_status unweight_decompress_bundle(const char* bundle, const char* out, const unweight_restore_options* options,
                                           unweight_restore_report* report);

/**
 * Checks all of a bundle without writing: structure, checksums, every tensor decoded, every file's SHA-256.
 *
 * @param bundle   of either profile
 * @param against  the source, every file of which is then compared bit for bit; or NULL
 * @param options  or NULL
 * @param report   filled in on success, or NULL
 *
 * Errors: as unweight_decompress_bundle(); UNWEIGHT_NOT_IDENTICAL.
 */
unweight_status unweight_verify_bundle(const char* bundle, const char* against, const unweight_restore_options* options,
                                       unweight_restore_report* report);

/* ---- inspection ------------------------------------------------------------------------------------------------- */

/** What a checkpoint or a bundle holds. The library's; to be freed with unweight_inspection_destroy(). */
typedef struct unweight_inspection unweight_inspection;

/** How to look. */
typedef struct unweight_inspect_options {
  uint64_t struct_size;
  uint32_t threads;                    /**< 0: one per logical CPU */
  uint32_t headers_only;               /**< 1: no values are read; a plain checkpoint's tensors count as stored raw */
  uint64_t reserved;                   /**< 0 */
  unweight_progress_callback progress; /**< or NULL */
  void* user_data;                     /**< handed to the callback */
} unweight_inspect_options;

/** Totals. */
typedef struct unweight_inspect_summary {
  uint64_t struct_size;
  uint64_t tensors;      /**< how many unweight_inspection_tensor() knows */
  uint64_t source_bytes; /**< all files of the source */
  uint64_t stored_bytes; /**< all files of a bundle; of a checkpoint, an estimate: encoded, not written */
  uint32_t is_bundle;    /**< 0: a plain checkpoint */
  uint32_t profile;      /**< an unweight_profile; of a checkpoint, that of the estimate */
} unweight_inspect_summary;

/** How a tensor lies in the bundle; for a plain checkpoint, what compressing it would decide. */
enum unweight_stored {
  UNWEIGHT_STORED_BLOB = 0, /**< as a blob */
  UNWEIGHT_STORED_RAW = 1,  /**< unchanged */
  UNWEIGHT_STORED_ALIAS = 2 /**< not: bit-identical to another one */
};

/** One tensor. Pointers are valid as long as the inspection. */
typedef struct unweight_tensor_report {
  uint64_t struct_size;
  const char* file;             /**< relative to the folder */
  const char* name;             /**< of the tensor */
  const char* dtype;            /**< of the source tensor, as safetensors names it: "BF16" */
  const uint64_t* shape;        /**< of the source tensor */
  uint64_t rank;                /**< number of extents */
  const char* alias_of;         /**< "file:name", or empty */
  uint64_t source_bytes;        /**< of the source tensor */
  uint64_t stored_bytes;        /**< in the bundle */
  uint64_t exception_count;     /**< of a blob: values that are stored with their exponents */
  double bits_per_weight;       /**< 8 * stored_bytes / elements */
  double exponent_entropy_bits; /**< BF16 alone, and not with headers_only */
  uint32_t stored;              /**< an unweight_stored */
  uint32_t palette_count;       /**< of a blob of the runtime form */
} unweight_tensor_report;

/**
 * Looks into a checkpoint or a bundle.
 *
 * @param path        a folder, or one .safetensors file
 * @param options     or NULL
 * @param inspection  set to the new object, otherwise to NULL
 *
 * Errors: 20..25, 30..35, 40..44, UNWEIGHT_CANCELLED.
 */
unweight_status unweight_inspect_path(const char* path, const unweight_inspect_options* options,
                                      unweight_inspection** inspection);

/** Frees it. NULL does nothing. */
void unweight_inspection_destroy(unweight_inspection* inspection);

/** Totals of an inspection. */
unweight_status unweight_inspection_summary(const unweight_inspection* inspection, unweight_inspect_summary* summary);

/** Tensor number `index`, below unweight_inspect_summary.tensors. Errors: UNWEIGHT_INVALID_ARGUMENT. */
unweight_status unweight_inspection_tensor(const unweight_inspection* inspection, uint64_t index,
                                           unweight_tensor_report* report);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
