// SPDX-License-Identifier: Apache-2.0
//
// In place of CUDA's header of that name.
#pragma once
#include "emulation/device_language.hpp"
