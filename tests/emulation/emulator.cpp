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

alignas(1024) std::byte shared[kMostClusterBlocks][kSharedBytes];

struct Thread {
  ucontext_t context{};
  std::unique_ptr<std::byte[]> stack;
  std::function<bool()> ready;  ///< what it waits for; empty: nothing
  std::uint32_t open_copies = 0;
  bool ended = false;
  bool at_cluster_barrier = false;  ///< has arrived in its present phase
  std::uint32_t cluster_phase = 0;  ///< in which it arrived last
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
  std::uint32_t thread;  ///< as which it is done
  std::function<void()> work;
  std::function<void()> done;
};

/// What a thread block has of its own, but for its threads.
struct BlockState {
  std::map<std::uint32_t, NamedBarrier> named;
  std::map<std::uint32_t, Barrier> barriers;
};

/// A cluster of thread blocks, often of one.
class Cluster {
 public:
  Cluster(const Grid& grid, std::uint32_t first_block, std::size_t shared_bytes, std::uint64_t seed,
          const std::function<void()>& body)
      : body_(body),
        random_(seed),
        shared_bytes_(shared_bytes),
        first_block_(first_block),
        block_threads_(grid.threads),
        threads_(grid.cluster * grid.threads),
        warps_(grid.cluster * grid.threads / kWarpLanes),
        blocks_(grid.cluster) {}

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
        threadIdx.x = index % block_threads_;
        blockIdx.x = first_block_ + rank();
        swapcontext(&scheduler_, &thread.context);
        if (failure_) {
          current_ = nullptr;
          std::rethrow_exception(failure_);
        }
        if (!thread.ended) continue;
        --alive;
        complete_cluster_phase();
      }
      // One copy in two passes or so, and always one where nothing else moves.
      if (!copies_.empty() && (!progress || random_.below(2) == 0)) {
        finish_a_copy();
        progress = true;
      }
      if (!progress) fail("no thread can go on: " + std::to_string(alive) + " wait");
    }
    if (!copies_.empty()) fail("a block ended while a copy was under way");
    current_ = nullptr;
  }

  static Cluster& current() {
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
    NamedBarrier& barrier = blocks_[rank()].named[name];
    meet(barrier.waiting, barrier.generation, threads == 0 ? block_threads_ : threads);
  }

  void arrive_at_named(std::uint32_t name, std::uint32_t threads) {
    NamedBarrier& barrier = blocks_[rank()].named[name];
    if (++barrier.waiting < threads) return;
    barrier.waiting = 0;
    ++barrier.generation;
  }

  [[nodiscard]] std::uint32_t running() const { return running_; }

  /// Of the running thread's block.
  [[nodiscard]] std::uint32_t rank() const { return running_ / block_threads_; }

  std::byte* shared_range(std::uint32_t of, std::uint32_t address, std::size_t bytes, std::size_t alignment) const {
    if (of >= blocks_.size()) fail("the cluster has no block " + std::to_string(of));
    if (address % alignment != 0 || address > shared_bytes_ || bytes > shared_bytes_ - address) {
      fail(std::to_string(bytes) + " bytes at shared address " + std::to_string(address) + ", of " +
           std::to_string(shared_bytes_) + ", aligned to " + std::to_string(alignment));
    }
    return shared[of] + address;
  }

  void cluster_arrive() {
    Thread& me = threads_[running_];
    if (me.at_cluster_barrier) fail("a thread arrives twice in a phase of the cluster's barrier");
    me.at_cluster_barrier = true;
    me.cluster_phase = cluster_phase_;
    complete_cluster_phase();
  }

  void cluster_wait() {
    const Thread& me = threads_[running_];
    if (cluster_phase_ == me.cluster_phase) wait([this, &me] { return cluster_phase_ != me.cluster_phase; });
  }

  /// Other blocks' threads may not have begun before that.
  void require_cluster() const {
    if (cluster_phase_ == 0) fail("another block's shared memory before the cluster's barrier");
  }

  void barrier_init(std::uint32_t address, std::uint32_t arrivals) {
    (void)shared_range(rank(), address, 8, 8);
    blocks_[rank()].barriers[address] = {arrivals, arrivals, 0, 0};
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
    std::memset(shared_range(rank(), to, bytes, 16), 0xdb, bytes);
    copies_.push_back({running_, std::move(work), std::move(done)});
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
    copy_later(to, bytes, std::move(work), [this, address, bytes] { count_bytes(address, bytes); });
  }

  void count_bytes(std::uint32_t address, std::uint32_t bytes) {
    Barrier& barrier = barrier_at(address);
    barrier.open_bytes -= bytes;
    complete(barrier);
  }

  /// As a thread of block `rank`.
  template <class Work>
  void as_block(std::uint32_t rank, Work work) {
    require_cluster();
    const std::uint32_t me = running_;
    running_ = rank * block_threads_;
    work();
    running_ = me;
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
    Cluster& cluster = *current_;
    Thread& me = cluster.threads_[cluster.running_];
    try {
      cluster.body_();
      if (me.open_copies != 0) fail("a thread ended while its copies were under way");
    } catch (...) {
      cluster.failure_ = std::current_exception();
    }
    me.ended = true;
    swapcontext(&me.context, &cluster.scheduler_);
  }

  void start(std::uint32_t index) {
    Thread& thread = threads_[index];
    thread.stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, &Cluster::enter, 0);
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
    auto& barriers = blocks_[rank()].barriers;
    const auto found = barriers.find(address);
    if (found == barriers.end()) fail("no barrier at shared address " + std::to_string(address));
    return found->second;
  }

  static void complete(Barrier& barrier) {
    if (barrier.pending != 0 || barrier.open_bytes != 0) return;
    barrier.pending = barrier.arrivals;
    ++barrier.phase;
  }

  void complete_cluster_phase() {
    const bool all = std::all_of(threads_.begin(), threads_.end(),
                                 [](const Thread& thread) { return thread.ended || thread.at_cluster_barrier; });
    if (!all) return;
    for (Thread& thread : threads_) thread.at_cluster_barrier = false;
    ++cluster_phase_;
  }

  void finish_a_copy() {
    auto copy = copies_.begin();
    std::advance(copy, static_cast<std::ptrdiff_t>(random_.below(copies_.size())));
    running_ = copy->thread;
    copy->work();
    copy->done();
    copies_.erase(copy);
    const auto open = std::partition(waiting_arrivals_.begin(), waiting_arrivals_.end(),
                                     [](const auto& a) { return a.first->open_copies != 0; });
    for (auto at = open; at != waiting_arrivals_.end(); ++at) {
      running_ = static_cast<std::uint32_t>(at->first - threads_.data());
      arrive(at->second);
    }
    waiting_arrivals_.erase(open, waiting_arrivals_.end());
  }

  static inline Cluster* current_ = nullptr;

  const std::function<void()>& body_;
  test::Random random_;
  std::size_t shared_bytes_;
  std::uint32_t first_block_, block_threads_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<BlockState> blocks_;
  std::uint32_t cluster_phase_ = 0;
  std::list<Copy> copies_;
  std::vector<std::pair<Thread*, std::uint32_t>> waiting_arrivals_;
  ucontext_t scheduler_{};
  std::uint32_t running_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

void launch(const Grid& grid, std::size_t shared_bytes, std::uint64_t seed, const std::function<void()>& body) {
  if (grid.threads == 0 || grid.threads % kWarpLanes != 0 || grid.threads > 1024)
    Cluster::fail("threads must be whole warps up to 1024");
  if (grid.cluster == 0 || grid.cluster > kMostClusterBlocks || grid.blocks % grid.cluster != 0)
    Cluster::fail("clusters must be of 1 to 8 blocks, and whole");
  if (shared_bytes > kSharedBytes) Cluster::fail("more shared memory than a block may use");
  gridDim = {grid.blocks, 1, 1};
  blockDim = {grid.threads, 1, 1};
  blockIdx = {0, 0, 0};
  for (std::uint32_t first = 0; first < grid.blocks; first += grid.cluster) {
    for (std::uint32_t rank = 0; rank < grid.cluster; ++rank) std::memset(shared[rank], 0xdb, sizeof shared[rank]);
    Cluster(grid, first, shared_bytes, seed * 1000003 + first, body).run();
  }
}

std::uint32_t thread_of_cluster() noexcept { return Cluster::current().running(); }
std::byte* shared_memory() noexcept { return shared[Cluster::current().rank()]; }
std::byte* shared_range(std::uint32_t address, std::size_t bytes, std::size_t alignment) {
  return Cluster::current().shared_range(Cluster::current().rank(), address, bytes, alignment);
}
std::byte* cluster_range(std::uint32_t rank, std::uint32_t address, std::size_t bytes, std::size_t alignment) {
  Cluster::current().require_cluster();
  return Cluster::current().shared_range(rank, address, bytes, alignment);
}
void cluster_arrive() { Cluster::current().cluster_arrive(); }
void cluster_wait() { Cluster::current().cluster_wait(); }
const std::byte* exchange(const void* mine, std::size_t bytes) { return Cluster::current().exchange(mine, bytes); }
void sync_threads(std::uint32_t name, std::uint32_t threads) { Cluster::current().sync_threads(name, threads); }
void arrive_at_named(std::uint32_t name, std::uint32_t threads) { Cluster::current().arrive_at_named(name, threads); }
void sync_block() { Cluster::current().sync_threads(0, 0); }
void barrier_init(std::uint32_t address, std::uint32_t arrivals) { Cluster::current().barrier_init(address, arrivals); }
void barrier_arrive(std::uint32_t address) { Cluster::current().arrive(address); }
void barrier_expect(std::uint32_t address, std::uint32_t bytes) { Cluster::current().expect(address, bytes); }
void barrier_wait(std::uint32_t address, std::uint32_t parity) { Cluster::current().wait_for_phase(address, parity); }
void copy_later(std::uint32_t to, std::uint32_t bytes, std::uint32_t barrier, std::function<void()> work) {
  Cluster::current().bulk_copy_later(to, bytes, barrier, std::move(work));
}
void barrier_arrive_at(std::uint32_t rank, std::uint32_t address) {
  Cluster::current().as_block(rank, [&] { Cluster::current().arrive(address); });
}
void copy_later_to(std::uint32_t rank, std::uint32_t to, std::uint32_t bytes, std::uint32_t barrier,
                   std::function<void()> work) {
  Cluster::current().as_block(rank, [&] { Cluster::current().bulk_copy_later(to, bytes, barrier, std::move(work)); });
}
void store_to(std::uint32_t rank, std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
  Cluster::current().as_block(rank, [&] {
    std::memcpy(shared_range(to, bytes, bytes), from, bytes);
    Cluster::current().count_bytes(barrier, bytes);
  });
}
void thread_copy_later(std::uint32_t to, std::uint32_t bytes, std::function<void()> work) {
  Cluster::current().thread_copy_later(to, bytes, std::move(work));
}
void wait_for_copies() { Cluster::current().wait_for_copies(); }
void arrive_after_copies(std::uint32_t barrier) { Cluster::current().arrive_after_copies(barrier); }

}  // namespace unweight::emulation
