// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unweight/plan.hpp>
#include <unweight/unweight_plan.h>

/// The object behind the C interface.
struct unweight_plan {
  unweight::Plan plan;
};
