// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <csignal>
#include <interrupt.hpp>

namespace unweight::cli {
namespace {

volatile std::sig_atomic_t last_signal = 0;

extern "C" void remember_signal(int signal) {
  if (last_signal != 0) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
  last_signal = signal;
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGXFSZ, SIG_IGN);  // writing beyond a size limit is an error like a full disk, not the end
  struct sigaction action = {};
  action.sa_handler = remember_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  constexpr std::array<int, 2> kSignals = {SIGINT, SIGTERM};
  for (const int signal : kSignals) {
    struct sigaction previous = {};
    // A shell starts background jobs with SIGINT ignored: leave it so.
    if (sigaction(signal, nullptr, &previous) == 0 && previous.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
}

int received_signal() noexcept { return last_signal; }

}  // namespace unweight::cli
