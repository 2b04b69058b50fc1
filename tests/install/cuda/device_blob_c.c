/* SPDX-License-Identifier: Apache-2.0
 *
 * The same from C.
 */
#include <stdio.h>
#include <unweight/unweight_cuda.h>

int main(void) {
  static const uint16_t values[64 * 128];
  static unsigned char blob[65536];
  const unweight_matrix_shape shape = {1, 64, 128};
  unweight_device_blob* device_blob = NULL;
  size_t blob_bytes = 0;
  if (unweight_encode(values, 64 * 128, &shape, 1, blob, sizeof blob, &blob_bytes) != UNWEIGHT_OK) {
    fprintf(stderr, "encode: %s\n", unweight_last_error_message());
    return 1;
  }
  if (unweight_device_blob_create(blob, blob_bytes, NULL, &device_blob) == UNWEIGHT_OK) {
    fprintf(stderr, "a blob at address 0 was accepted\n");
    return 1;
  }
  /* Both parts of the library share one last error. */
  if (unweight_last_error_message()[0] == '\0') {
    fprintf(stderr, "no error message\n");
    return 1;
  }
  printf("refused as it should be: %s\n", unweight_last_error_message());
  return 0;
}
