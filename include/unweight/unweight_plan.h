/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of plans, as in <unweight/plan.hpp> and <unweight/tune.hpp>: reading and writing them, and their
 * refinement in a whole model. What follows a plan on the GPU is in <unweight/unweight_cuda.h>.
 *
 * What <unweight/unweight.h> says holds here too: errors, threads, structures that may grow. A plan that is being
 * changed may not be used by other threads meanwhile.
 */
#ifndef UNWEIGHT_UNWEIGHT_PLAN_H
#define UNWEIGHT_UNWEIGHT_PLAN_H

#include <stddef.h>
#include <stdint.h>
#include <unweight/unweight.h>

#pragma GCC visibility push(default) /* the library hides all other symbols */
#ifdef __cplusplus
extern "C" {
#endif

/** A plan: which way to multiply, for every weight and number of tokens. To be destroyed by its owner. */
typedef struct unweight_plan unweight_plan;

/**
 * Reads a plan file.
 *
 * @param path  of the file
 * @param plan  set to the new object, otherwise to NULL
 *
 * Errors: UNWEIGHT_NOT_FOUND, UNWEIGHT_IO, and those of unweight_plan_parse().
 */
unweight_status unweight_plan_read(const char* path, unweight_plan** plan);

/**
 * Reads a plan from text.
 *
 * @param text        JSON; not needed after the call
 * @param text_bytes  its length
 * @param plan        set to the new object, otherwise to NULL
 *
 * Errors: UNWEIGHT_BAD_JSON; UNWEIGHT_INVALID_ARGUMENT (values out of range); UNWEIGHT_UNSUPPORTED_VERSION.
 */
unweight_status unweight_plan_parse(const char* text, size_t text_bytes, unweight_plan** plan);

/** Frees the object. NULL does nothing. */
void unweight_plan_destroy(unweight_plan* plan);

/**
 * Writes a plan file in one step: readers see the old file or the new one.
 *
 * Errors: UNWEIGHT_IO, UNWEIGHT_NO_SPACE.
 */
unweight_status unweight_plan_write(const unweight_plan* plan, const char* path);

/**
 * The plan's JSON text, without a terminating zero.
 *
 * @param plan            the plan
 * @param text            receives the text; may be NULL together with capacity_bytes == 0: only text_bytes is wanted
 * @param capacity_bytes  size of `text`
 * @param text_bytes      set to the text's length on success and after UNWEIGHT_BUFFER_TOO_SMALL, otherwise to 0
 *
 * Errors: UNWEIGHT_BUFFER_TOO_SMALL.
 */
unweight_status unweight_plan_text(const unweight_plan* plan, char* text, size_t capacity_bytes, size_t* text_bytes);

/**
 * Whether a tensor is to be kept raw: decoded once, by unweight_device_decode_to_raw(), when the model is loaded.
 *
 * @param plan         the plan
 * @param tensor_name  "model.layers.0.self_attn.q_proj.weight"; that of the merged matrix, qkv_proj, will do too
 * @param keeps_raw    set to 0 or 1
 */
unweight_status unweight_plan_keeps_raw(const unweight_plan* plan, const char* tensor_name, int* keeps_raw);

/* ---- refinement ------------------------------------------------------------------------------------------------- */

/**
 * Microseconds of one step of the model with a plan, measured by the caller, who prepares its layers by the plan and
 * captures the step anew. The plan is the library's, for the time of the call. What is not above 0, or not a number,
 * ends the refinement with UNWEIGHT_CANCELLED.
 */
typedef double (*unweight_step_timer)(void* context, const unweight_plan* plan);

/** How far a refinement is. */
typedef struct unweight_refine_progress {
  uint64_t tried;      /**< alternatives */
  uint64_t total;      /**< at most */
  double seconds;      /**< since the beginning */
  double first_us;     /**< of the step at the beginning */
  double best_us;      /**< and now */
  const char* current; /**< what is tried next; valid for the time of the call */
} unweight_refine_progress;

/** Return 0 to stop; the plan is then the best so far. */
typedef int (*unweight_refine_callback)(void* context, const unweight_refine_progress* progress);

/** Members that are 0 have the default. */
typedef struct unweight_refine_options {
  uint64_t struct_size;
  unweight_step_timer step_us;       /**< must not be NULL */
  unweight_refine_callback progress; /**< or NULL */
  void* context;                     /**< for both */
  const uint32_t* tokens;            /**< numbers of tokens that the step has; NULL: all of the plan's */
  size_t token_count;                /**< how many */
  double seconds;                    /**< no new trial after that; 0: no limit */
  double least_gain;                 /**< share of the step's time that a change must bring; 0: 0.002 */
  uint32_t rounds;                   /**< measurements of each side in a trial; 0: 5 */
  uint32_t passes;                   /**< over all cells; 0: 2 */
  uint64_t reserved;                 /**< 0 */
} unweight_refine_options;

/** What a refinement did. */
typedef struct unweight_refine_report {
  uint64_t struct_size; /**< in: bytes the caller has room for; out: bytes that are filled in */
  double first_us;      /**< of the step at the beginning */
  double best_us;       /**< at the end */
  double seconds;       /**< that it took */
  uint64_t tried;       /**< alternatives */
  uint64_t accepted;    /**< of these */
  uint32_t stopped;     /**< 1: by the time limit or the callback */
  uint32_t reserved;    /**< 0 */
} unweight_refine_report;

/**
 * Coordinate descent on the caller's step: for one weight and number of tokens at a time, the measured alternatives
 * take the choice's place, and stay where the step becomes faster beyond the noise. After an error the plan is the best
 * so far, too.
 *
 * @param plan     changed
 * @param options  what and how long
 * @param report   filled in on success; may be NULL
 *
 * Errors: UNWEIGHT_INVALID_ARGUMENT (options), UNWEIGHT_CANCELLED (the timer).
 */
unweight_status unweight_plan_refine(unweight_plan* plan, const unweight_refine_options* options,
                                     unweight_refine_report* report);

#ifdef __cplusplus
}
#endif
#pragma GCC visibility pop

#endif
