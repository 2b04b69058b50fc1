// SPDX-License-Identifier: Apache-2.0
//
// What the C interface's handles point to.
#pragma once

#include <unweight/cuda.hpp>
#include <unweight/distribution_cuda.hpp>
#include <unweight/unweight_cuda.h>

struct unweight_device_blob {
  unweight::DeviceBlob blob;
};

struct unweight_distribution_device_blob {
  unweight::distribution::DeviceBlob blob;
};
