// SPDX-License-Identifier: Apache-2.0
//
// Programmatic dependent launch (PTX ISA, "griddepcontrol"): a kernel launched with that attribute may begin before the
// one in front of it in the stream has ended. Without the attribute both do nothing.
#pragma once

namespace unweight::ptx {

/// Lets the next kernel of the stream begin as soon as all blocks of this one have got here or ended.
__device__ __forceinline__ void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

/// Waits until the kernels before this one have ended and what they wrote is visible.
__device__ __forceinline__ void wait_for_previous_grids() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

}  // namespace unweight::ptx
