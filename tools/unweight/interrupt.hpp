// SPDX-License-Identifier: Apache-2.0
//
// SIGINT and SIGTERM: the first asks the work to stop at the next safe point, the second ends the process at once.
// SIGXFSZ is ignored.
#pragma once

namespace unweight::cli {

void catch_interrupts();
/// The signal that asked to stop, or 0.
[[nodiscard]] int received_signal() noexcept;

}  // namespace unweight::cli
