// SPDX-License-Identifier: Apache-2.0
#include "emulation/emulator.hpp"
#include "emulation/device_language.hpp"
#include "support/tensors.hpp"
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <list>
#include <map>
#include <memory>
#include <stdexcept>
#include <ucontext.h>
#include <vector>

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace unweight::emulation {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr std::size_t kExchangeBytes = 64;  ///< a lane

alignas(1024) std::byte shared[kSharedBytes];

struct Thread {
  ucontext_t context{};
  std::unique_ptr<std::byte[]> stack;
  std::function<bool()> ready;  ///< what it waits for; empty: nothing
  std::uint32_t open_copies = 0;
  bool ended = false;
};

struct Barrier {
  std::uint32_t arrivals = 0;  ///< of a phase
  std::uint32_t pending = 0;
  std::int64_t open_bytes = 0;
  std::uint32_t phase = 0;
};

struct NamedBarrier {
  std::uint32_t waiting = 0;
  std::uint32_t generation = 0;
};

struct Warp {
  std::array<std::array<std::byte, kWarpLanes * kExchangeBytes>, 2> values{};
  std::size_t bytes = 0;
  std::uint32_t waiting = 0;
  std::uint32_t generation = 0;
};

struct Copy {
  std::function<void()> work;
  std::function<void()> done;
};

/// One thread block.
class Block {
 public:
  Block(std::uint32_t threads, std::size_t shared_bytes, std::uint64_t seed, const std::function<void()>& body)
      : body_(body), random_(seed), shared_bytes_(shared_bytes), threads_(threads), warps_(threads / kWarpLanes) {}

  void run() {
    current_ = this;
    for (std::uint32_t i = 0; i < threads_.size(); ++i) start(i);
    std::vector<std::uint32_t> order(threads_.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::size_t alive = threads_.size();
    while (alive != 0) {
      bool progress = false;
      for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.below(i)]);
      for (const std::uint32_t index : order) {
        Thread& thread = threads_[index];
        if (thread.ended || (thread.ready && !thread.ready())) continue;
        thread.ready = nullptr;
        progress = true;
        running_ = index;
        threadIdx.x = index;
        swapcontext(&scheduler_, &thread.context);
        if (failure_) {
          current_ = nullptr;
          std::rethrow_exception(failure_);
        }
        if (thread.ended) --alive;
      }
      // One copy in two passes or so, and always one where nothing else moves.
      if (!copies_.empty() && (!progress || random_.below(2) == 0)) {
        finish_a_copy();
        progress = true;
      }
      if (!progress) fail("no thread can go on: " + std::to_string(alive) + " wait");
    }
    if (!copies_.empty()) fail("the block ended while a copy was under way");
    current_ = nullptr;
  }

  static Block& current() {
    if (current_ == nullptr) throw std::logic_error("called outside of a kernel");
    return *current_;
  }

  [[noreturn]] static void fail(const std::string& message) { throw std::runtime_error("emulation: " + message); }

  /// Lets others run until `ready` holds.
  void wait(std::function<bool()> ready) {
    Thread& me = threads_[running_];
    me.ready = std::move(ready);
    swapcontext(&me.context, &scheduler_);
  }

  const std::byte* exchange(const void* mine, std::size_t bytes) {
    if (bytes > kExchangeBytes) fail("an exchange of more than 64 bytes a lane");
    Warp& warp = warps_[running_ / kWarpLanes];
    if (warp.waiting == 0) {
      warp.bytes = bytes;
    } else if (warp.bytes != bytes) {
      fail("lanes of a warp meet in different functions");
    }
    auto& values = warp.values[warp.generation % 2];
    std::memcpy(values.data() + running_ % kWarpLanes * bytes, mine, bytes);
    meet(warp.waiting, warp.generation, kWarpLanes);
    return values.data();
  }

  void sync_threads(std::uint32_t name, std::uint32_t threads) {
    NamedBarrier& barrier = named_[name];
    meet(barrier.waiting, barrier.generation, threads == 0 ? static_cast<std::uint32_t>(threads_.size()) : threads);
  }

  void arrive_at_named(std::uint32_t name, std::uint32_t threads) {
    NamedBarrier& barrier = named_[name];
    if (++barrier.waiting < threads) return;
    barrier.waiting = 0;
    ++barrier.generation;
  }

  std::byte* shared_range(std::uint32_t address, std::size_t bytes, std::size_t alignment) const {
    if (address % alignment != 0 || address > shared_bytes_ || bytes > shared_bytes_ - address) {
      fail(std::to_string(bytes) + " bytes at shared address " + std::to_string(address) + ", of " +
           std::to_string(shared_bytes_) + ", aligned to " + std::to_string(alignment));
    }
    return shared + address;
  }

  void barrier_init(std::uint32_t address, std::uint32_t arrivals) {
    (void)shared_range(address, 8, 8);
    barriers_[address] = {arrivals, arrivals, 0, 0};
  }

  void arrive(std::uint32_t address) {
    Barrier& barrier = barrier_at(address);
    if (barrier.pending == 0) fail("more arrivals than barrier " + std::to_string(address) + " expects");
    --barrier.pending;
    complete(barrier);
  }

  void expect(std::uint32_t address, std::uint32_t bytes) {
    Barrier& barrier = barrier_at(address);
    if (barrier.pending == 0) fail("bytes expected in a phase that has all its arrivals");
    barrier.open_bytes += bytes;
  }

  void wait_for_phase(std::uint32_t address, std::uint32_t parity) {
    const Barrier& barrier = barrier_at(address);
    if (barrier.phase % 2 != parity) return;
    wait([&barrier, parity] { return barrier.phase % 2 != parity; });
  }

  void copy_later(std::uint32_t to, std::uint32_t bytes, std::function<void()> work, std::function<void()> done) {
    std::memset(shared_range(to, bytes, 16), 0xdb, bytes);
    copies_.push_back({std::move(work), std::move(done)});
  }

  void thread_copy_later(std::uint32_t to, std::uint32_t bytes, std::function<void()> work) {
    Thread& me = threads_[running_];
    ++me.open_copies;
    copy_later(to, bytes, std::move(work), [&me] { --me.open_copies; });
  }

  void wait_for_copies() {
    const Thread& me = threads_[running_];
    if (me.open_copies != 0) wait([&me] { return me.open_copies == 0; });
  }

  void bulk_copy_later(std::uint32_t to, std::uint32_t bytes, std::uint32_t address, std::function<void()> work) {
    copy_later(to, bytes, std::move(work), [this, address, bytes] {
      Barrier& barrier = barrier_at(address);
      barrier.open_bytes -= bytes;
      complete(barrier);
    });
  }

  void arrive_after_copies(std::uint32_t address) {
    Thread& me = threads_[running_];
    if (me.open_copies == 0) {
      arrive(address);
      return;
    }
    waiting_arrivals_.push_back({&me, address});
  }

 private:
  static void enter() {
    Block& block = *current_;
    Thread& me = block.threads_[block.running_];
    try {
      block.body_();
      if (me.open_copies != 0) fail("a thread ended while its copies were under way");
    } catch (...) {
      block.failure_ = std::current_exception();
    }
    me.ended = true;
    swapcontext(&me.context, &block.scheduler_);
  }

  void start(std::uint32_t index) {
    Thread& thread = threads_[index];
    thread.stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, &Block::enter, 0);
  }

  void meet(std::uint32_t& waiting, std::uint32_t& generation, std::uint32_t all) {
    if (++waiting == all) {
      waiting = 0;
      ++generation;
      return;
    }
    wait([&generation, mine = generation] { return generation != mine; });
  }

  Barrier& barrier_at(std::uint32_t address) {
    const auto found = barriers_.find(address);
    if (found == barriers_.end()) fail("no barrier at shared address " + std::to_string(address));
    return found->second;
  }

  static void complete(Barrier& barrier) {
    if (barrier.pending != 0 || barrier.open_bytes != 0) return;
    barrier.pending = barrier.arrivals;
    ++barrier.phase;
  }

  void finish_a_copy() {
    auto copy = copies_.begin();
    std::advance(copy, static_cast<std::ptrdiff_t>(random_.below(copies_.size())));
    copy->work();
    copy->done();
    copies_.erase(copy);
    const auto open = std::partition(waiting_arrivals_.begin(), waiting_arrivals_.end(),
                                     [](const auto& a) { return a.first->open_copies != 0; });
    for (auto at = open; at != waiting_arrivals_.end(); ++at) arrive(at->second);
    waiting_arrivals_.erase(open, waiting_arrivals_.end());
  }

  static inline Block* current_ = nullptr;

  const std::function<void()>& body_;
  test::Random random_;
  std::size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::map<std::uint32_t, NamedBarrier> named_;
  std::map<std::uint32_t, Barrier> barriers_;
  std::list<Copy> copies_;
  std::vector<std::pair<Thread*, std::uint32_t>> waiting_arrivals_;
  ucontext_t scheduler_{};
  std::uint32_t running_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

void launch(std::uint32_t blocks, std::uint32_t threads, std::size_t shared_bytes, std::uint64_t seed,
            const std::function<void()>& body) {
  if (threads == 0 || threads % kWarpLanes != 0 || threads > 1024)
    Block::fail("threads must be whole warps up to 1024");
  if (shared_bytes > kSharedBytes) Block::fail("more shared memory than a block may use");
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  for (std::uint32_t b = 0; b < blocks; ++b) {
    blockIdx = {b, 0, 0};
    std::memset(shared, 0xdb, sizeof shared);
    Block(threads, shared_bytes, seed * 1000003 + b, body).run();
  }
}

std::byte* shared_memory() noexcept { return shared; }
std::byte* shared_range(std::uint32_t address, std::size_t bytes, std::size_t alignment) {
  return Block::current().shared_range(address, bytes, alignment);
}
const std::byte* exchange(const void* mine, std::size_t bytes) { return Block::current().exchange(mine, bytes); }
void sync_threads(std::uint32_t name, std::uint32_t threads) { Block::current().sync_threads(name, threads); }
void arrive_at_named(std::uint32_t name, std::uint32_t threads) { Block::current().arrive_at_named(name, threads); }
void sync_block() { Block::current().sync_threads(0, 0); }
void barrier_init(std::uint32_t address, std::uint32_t arrivals) { Block::current().barrier_init(address, arrivals); }
void barrier_arrive(std::uint32_t address) { Block::current().arrive(address); }
void barrier_expect(std::uint32_t address, std::uint32_t bytes) { Block::current().expect(address, bytes); }
void barrier_wait(std::uint32_t address, std::uint32_t parity) { Block::current().wait_for_phase(address, parity); }
void copy_later(std::uint32_t to, std::uint32_t bytes, std::uint32_t barrier, std::function<void()> work) {
  Block::current().bulk_copy_later(to, bytes, barrier, std::move(work));
}
void thread_copy_later(std::uint32_t to, std::uint32_t bytes, std::function<void()> work) {
  Block::current().thread_copy_later(to, bytes, std::move(work));
}
void wait_for_copies() { Block::current().wait_for_copies(); }
void arrive_after_copies(std::uint32_t barrier) { Block::current().arrive_after_copies(barrier); }

}  // namespace unweight::emulation
