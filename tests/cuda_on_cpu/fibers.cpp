// The machine of fibers.h: failures, fibers, shared memory, warps, blocks and the scheduler.
#include "fibers.h"

#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace cuda_on_cpu {

Machine machine;

// ---- failures ---------------------------------------------------------------------------------

static void describe(const Fiber& f, const char* message) {
    const uint3 b = f.block->index, t = f.index;
    snprintf(machine.error, sizeof machine.error,
             "block (%u, %u, %u) thread (%u, %u, %u), lane %d of warp %d: %s", b.x, b.y, b.z, t.x,
             t.y, t.z, f.lane, f.warp, message);
}

[[noreturn]] void fail(const Fiber& f, const char* message) {
    describe(f, message);
    machine.inside = false;
    _longjmp(machine.scheduler, FAILED);
}

// Device arrays lie between pages that may not be touched, see memory.py.
static void on_fault(int signal, siginfo_t* info, void*) {
    if (!machine.inside) {              // not ours: let it kill the process
        ::signal(signal, SIG_DFL);
        return;
    }
    char message[160];
    snprintf(message, sizeof message, "out-of-bounds access (address %p)", info->si_addr);
    fail(self(), message);
}

struct FaultHandler {
    static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS};
    struct sigaction before[2];
    stack_t stack_before;
    std::vector<char> memory = std::vector<char>(64 << 10);
    FaultHandler() {
        stack_t stack{};
        stack.ss_sp = memory.data();
        stack.ss_size = memory.size();
        sigaltstack(&stack, &stack_before);
        struct sigaction action{};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < 2; ++i) sigaction(SIGNALS[i], &action, &before[i]);
    }
    ~FaultHandler() {
        for (int i = 0; i < 2; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};

// What g++ calls where its -fsanitize checks fail; it passes the place in the source first.
struct Place { const char* file; uint32_t line, column; };

[[noreturn]] static void fail_at(const void* place, const char* what, long long value) {
    const auto& p = *static_cast<const Place*>(place);
    char message[400];
    if (!machine.inside) abort();
    snprintf(message, sizeof message, "%s:%u:%u: %s (%lld)", p.file, p.line, p.column, what, value);
    fail(self(), message);
}

}  // namespace cuda_on_cpu

#define SANITIZER(name, ...) \
    extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_##name(__VA_ARGS__)
SANITIZER(out_of_bounds, const void* place, intptr_t index) {
    cuda_on_cpu::fail_at(place, "index outside the array", index);
}
SANITIZER(type_mismatch_v1, const void* place, intptr_t address) {
    cuda_on_cpu::fail_at(place, address ? "misaligned address" : "null pointer", address);
}
SANITIZER(divrem_overflow, const void* place, intptr_t dividend, intptr_t) {
    cuda_on_cpu::fail_at(place, "integer division by zero, or overflow", dividend);
}
SANITIZER(shift_out_of_bounds, const void* place, intptr_t, intptr_t count) {
    cuda_on_cpu::fail_at(place, "shift by more bits than there are", count);
}
#undef SANITIZER

namespace cuda_on_cpu {

// ---- fibers -----------------------------------------------------------------------------------

__attribute__((noinline)) static void leave() {
    Fiber& f = self();
    if (_setjmp(f.position) == FIRST) {
        machine.inside = false;
        _longjmp(machine.scheduler, SWITCHED);
    }
}

static void wait(State state) {
    self().state = state;
    do leave(); while (self().state == state);
}

void pause(bool always) {
    if (!always && machine.schedule < SHUFFLED) return;
    self().state = State::PAUSED;
    leave();
}

static void fiber_main() {
    for (;;) {                          // a fiber serves one block after another
        machine.entry(machine.arguments);
        self().state = State::EXITED;
        leave();
    }
}

__attribute__((noinline)) static Jump resume(Fiber& f) {
    const int jump = _setjmp(machine.scheduler);
    if (jump != FIRST) return Jump(jump);
    machine.current = &f;
    f.state = State::READY;
    machine.inside = true;
    if (f.started) _longjmp(f.position, SWITCHED);
    f.started = true;
    setcontext(&f.start);
    __builtin_unreachable();
}

static char* grow(Stacks& stacks, size_t count) {
    if (stacks.count < count) {
        if (stacks.memory) munmap(stacks.memory, stacks.count * STACK);
        stacks.memory = (char*)mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        stacks.count = count;
        for (size_t i = 0; i < count; ++i) mprotect(stacks.memory + i * STACK, PAGE, PROT_NONE);
    }
    return stacks.memory;
}

// ---- shared memory ----------------------------------------------------------------------------

// `__shared__` variables are thread_local: together they are this library's thread-local storage,
// which can therefore be poisoned, and exchanged when another block goes on.
static thread_local char shared_anchor;

struct Range { unsigned char* start; size_t size; };

static int find_range(dl_phdr_info* info, size_t, void* found) {
    const auto* start = (const unsigned char*)info->dlpi_tls_data;
    const auto* here = (const unsigned char*)&shared_anchor;
    for (int i = 0; start && i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_TLS || here < start || here >= start + segment.p_memsz) continue;
        *(Range*)found = {const_cast<unsigned char*>(start), segment.p_memsz};
        return 1;
    }
    return 0;
}

static Range shared_memory() {
    shared_anchor = 0;                  // the first touch allocates
    Range range{nullptr, 0};
    dl_iterate_phdr(find_range, &range);
    return range;
}

static void load_shared(Block& b, Range shared) {
    if (machine.loaded == &b) return;
    if (machine.loaded) memcpy(machine.loaded->shared.data(), shared.start, shared.size);
    memcpy(shared.start, b.shared.data(), shared.size);
    machine.loaded = &b;
}

unsigned char* dynamic_shared() {
    const auto address = (uintptr_t)block().dynamic.data();
    return (unsigned char*)((address + 127) & ~uintptr_t(127));
}

// ---- what the lanes of a warp do together -----------------------------------------------------

static unsigned lanes_that(const Fiber& f, bool (*holds)(const Fiber&)) {
    unsigned lanes = 0;
    const auto& fibers = f.block->fibers;
    for (size_t i = size_t(f.warp) * 32, l = 0; l < 32 && i + l < fibers.size(); ++l)
        if (holds(fibers[i + l])) lanes |= 1u << l;
    return lanes;
}
unsigned lanes_running(const Fiber& f) {
    return lanes_that(f, [](const Fiber& g) { return g.state != State::EXITED; });
}
static unsigned lanes_existing(const Fiber& f) {
    return lanes_that(f, [](const Fiber&) { return true; });
}

void meet(unsigned mask, const char* call, void (*deliver)(Fiber*, unsigned)) {
    Fiber& f = self();
    if (!(mask >> f.lane & 1)) fail(f, "the calling lane is not in its own mask");
    mask &= lanes_existing(f);          // of a last, partial warp
    f.mask = mask;
    f.call = call;
    unsigned& arrived = block().arrived[f.warp];
    arrived |= 1u << f.lane;
    if ((arrived & mask) != mask) return wait(State::AT_WARP);
    Fiber* lanes = &block().fibers[f.warp * 32];
    for (int l = 0; l < 32; ++l) {
        if (!(mask >> l & 1)) continue;
        if (strcmp(lanes[l].call, call)) fail(lanes[l], "lanes of one mask meet in different calls");
        if (lanes[l].mask != mask) fail(lanes[l], "lanes disagree on the mask of a warp operation");
    }
    deliver(lanes, mask);
    for (int l = 0; l < 32; ++l)
        if (mask >> l & 1) lanes[l].state = State::READY;
    arrived &= ~mask;
}

void deliver_nothing(Fiber*, unsigned) {}

void deliver_values(Fiber* lanes, unsigned mask) {
    for (int l = 0; l < 32; ++l) {
        if (!(mask >> l & 1)) continue;
        const int source = lanes[l].source;
        if (!(mask >> source & 1)) fail(lanes[l], "a shuffle reads a lane outside the mask");
        memcpy(lanes[l].received, lanes[source].given, 8);
    }
}

static void deliver_ballot(Fiber* lanes, unsigned mask) {
    unsigned ballot = 0;
    for (int l = 0; l < 32; ++l)
        if (mask >> l & 1 && lanes[l].given[0]) ballot |= 1u << l;
    for (int l = 0; l < 32; ++l)
        if (mask >> l & 1) memcpy(lanes[l].received, &ballot, 4);
}

unsigned ballot(unsigned mask, bool predicate, const char* call) {
    Fiber& f = self();
    f.given[0] = predicate;
    meet(mask, call, deliver_ballot);
    unsigned result;
    memcpy(&result, f.received, sizeof result);
    return result;
}

// ---- what a block does together ---------------------------------------------------------------

int block_barrier(const char* call, int line, bool predicate) {
    Fiber& f = self();
    f.call = call;
    f.line = line;
    block().predicates += predicate;
    wait(State::AT_BLOCK);
    return block().votes;
}

static bool release_barrier(Block& b) {
    for (auto& f : b.fibers)
        if (f.state != State::AT_BLOCK) return false;
    for (auto& f : b.fibers) {
        const Fiber& first = b.fibers[0];
        if (strcmp(f.call, first.call) || f.line != first.line) {
            char message[200];
            snprintf(message, sizeof message,
                     "waits in %s of line %d, thread 0 in %s of line %d: a divergent barrier",
                     f.call, f.line, first.call, first.line);
            machine.current = &f;
            describe(f, message);
            return false;
        }
        f.state = State::READY;
    }
    b.votes = b.predicates;
    b.predicates = 0;
    return true;
}

// ---- the scheduler ----------------------------------------------------------------------------

static size_t random_below(size_t n) {
    machine.random = machine.random * 6364136223846793005u + 1442695040888963407u;
    return (machine.random >> 33) % n;
}

static void order(std::vector<Fiber*>& fibers) {
    if (machine.schedule < SHUFFLED) return;
    for (size_t i = fibers.size(); i > 1; --i) std::swap(fibers[i - 1], fibers[random_below(i)]);
}

static void report_deadlock(const std::vector<Fiber*>& fibers) {
    const Fiber* waiting = nullptr;
    for (auto* f : fibers)
        if (f->state == State::AT_WARP || (!waiting && f->state == State::AT_BLOCK)) {
            waiting = f;
            if (f->state == State::AT_WARP) break;
        }
    const Fiber& f = *waiting;
    const Fiber* other = nullptr;       // somebody it waits for
    for (auto& g : f.block->fibers)
        if (f.state == State::AT_BLOCK ? g.state != State::AT_BLOCK
                                       : g.warp == f.warp && f.mask >> g.lane & 1 &&
                                             g.state != State::AT_WARP) {
            other = &g;
            break;
        }
    char message[400], missing[200] = "lanes of its mask which wait elsewhere";
    if (other)
        snprintf(missing, sizeof missing, "thread (%u, %u, %u), which %s%s", other->index.x,
                 other->index.y, other->index.z,
                 other->state == State::EXITED ? "has exited" : "waits in ",
                 other->state == State::EXITED ? "" : other->call);
    if (f.state == State::AT_WARP)
        snprintf(message, sizeof message, "deadlock: waits in %s (mask %08x) for %s", f.call,
                 f.mask, missing);
    else
        snprintf(message, sizeof message, "deadlock: waits in %s of line %d for %s", f.call,
                 f.line, missing);
    describe(f, message);
}

// Run the threads of some blocks until all have exited; false on failure.
static bool run(std::vector<Block>& blocks, Range shared) {
    std::vector<Fiber*> fibers;
    for (auto& b : blocks)
        for (auto& f : b.fibers) fibers.push_back(&f);
    if (machine.schedule == REVERSE) std::reverse(fibers.begin(), fibers.end());
    for (long idle = 0;;) {
        order(fibers);
        bool advanced = false, paused = false, exited = true;
        for (auto* f : fibers) {
            if (f->state != State::READY && f->state != State::PAUSED) continue;
            load_shared(*f->block, shared);
            if (resume(*f) == FAILED) return false;
            (f->state == State::PAUSED ? paused : advanced) = true;
        }
        for (auto& b : blocks) advanced |= release_barrier(b);
        if (machine.error[0]) return false;
        for (auto* f : fibers) exited &= f->state == State::EXITED;
        if (exited) return true;
        if (!advanced && !paused) return report_deadlock(fibers), false;
        idle = advanced ? 0 : idle + 1;
        if (idle > PATIENCE) {
            for (auto* f : fibers)
                if (f->state == State::PAUSED) {
                    describe(*f, "spins on memory that nobody writes: does it wait for a block "
                                 "that has not started?");
                    return false;
                }
        }
    }
}

static void prepare(Block& b, uint3 index, size_t shared_bytes) {
    b.index = index;
    b.predicates = b.votes = 0;
    b.shared.assign(shared_bytes, POISON);
    b.dynamic.assign(machine.dynamic_bytes + 128, POISON);
    std::fill(b.arrived.begin(), b.arrived.end(), 0u);
    for (auto& f : b.fibers) f.state = State::READY;
}

static void create(Block& b, char* stack) {
    const dim3 n = machine.threads;
    const int count = n.x * n.y * n.z;
    b.fibers = std::vector<Fiber>(count);
    b.arrived.resize((count + 31) / 32);
    for (int i = 0; i < count; ++i, stack += STACK) {
        Fiber& f = b.fibers[i];
        f.block = &b;
        f.number = i;
        f.lane = i % 32;
        f.warp = i / 32;
        f.index = {i % n.x, i / n.x % n.y, i / (n.x * n.y)};
        f.call = "";
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stack + PAGE;
        f.start.uc_stack.ss_size = STACK - PAGE;
        f.start.uc_link = nullptr;
        makecontext(&f.start, fiber_main, 0);
    }
}

bool run_grid(Stacks& stacks) {
    const dim3 grid = machine.grid;
    const size_t count = size_t(grid.x) * grid.y * grid.z;
    const size_t together = std::min<size_t>(count, machine.schedule == INTERLEAVED ? RESIDENT : 1);
    const size_t threads = size_t(machine.threads.x) * machine.threads.y * machine.threads.z;
    char* stack = grow(stacks, together * threads);
    const Range shared = shared_memory();
    machine.blocks = std::vector<Block>(together);
    for (auto& b : machine.blocks) create(b, stack), stack += threads * STACK;
    FaultHandler handler;
    for (size_t first = 0; first < count; first += together) {
        machine.loaded = nullptr;
        std::vector<Block>& blocks = machine.blocks;
        if (first + together > count) blocks.resize(count - first);
        for (size_t i = 0; i < blocks.size(); ++i) {
            const size_t b = first + i;
            prepare(blocks[i], {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                                unsigned(b / grid.x / grid.y)}, shared.size);
        }
        if (!run(blocks, shared)) return false;
    }
    return true;
}

}  // namespace cuda_on_cpu
