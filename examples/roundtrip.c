/* SPDX-License-Identifier: Apache-2.0
 *
 * Compresses one matrix in memory and restores it, in C.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unweight/unweight.h>

enum { kRows = 256, kCols = 512, kValues = kRows * kCols };

static uint16_t weights[kValues];
static uint16_t restored[kValues];

/* Says what failed; returns 1 when nothing did. */
static int succeeded(const char* what, unweight_status status) {
  if (status == UNWEIGHT_OK) return 1;
  fprintf(stderr, "%s: %s: %s\n", what, unweight_status_name(status), unweight_last_error_message());
  return 0;
}

int main(void) {
  const unweight_matrix_shape shape = {.batch = 1, .rows = kRows, .cols = kCols};
  unweight_blob_info info = {.struct_size = sizeof info};
  size_t capacity_bytes = 0;
  size_t blob_bytes = 0;
  void* blob = NULL;
  int identical = 0;

  /* bfloat16 values: bits of small positive and negative numbers with four exponents. */
  uint32_t state = 1;
  for (size_t i = 0; i < kValues; ++i) {
    state = state * 1664525u + 1013904223u;
    weights[i] = (uint16_t)((state >> 16 & 0x8000u) | (120u + (state >> 30)) << 7 | (state >> 8 & 0x7fu));
  }

  if (!succeeded("encode_bound", unweight_encode_bound(&shape, &capacity_bytes))) return 1;
  blob = malloc(capacity_bytes);
  if (blob == NULL) {
    fprintf(stderr, "no memory for a blob of %zu bytes\n", capacity_bytes);
    return 1;
  }
  if (succeeded("encode", unweight_encode(weights, kValues, &shape, 1, blob, capacity_bytes, &blob_bytes)) &&
      succeeded("inspect", unweight_inspect(blob, blob_bytes, &info)) &&
      succeeded("decode", unweight_decode(blob, blob_bytes, restored, kValues, 1, 1))) {
    printf("%zu bytes became %zu, %.2f bits a weight\n", sizeof weights, blob_bytes, info.bits_per_weight);
    identical = memcmp(weights, restored, sizeof weights) == 0;
    printf("%s\n", identical ? "identical" : "different");
  }
  free(blob);
  return identical ? 0 : 1;
}
