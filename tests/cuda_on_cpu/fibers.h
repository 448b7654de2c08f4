// How blocks of CUDA threads run on one CPU thread: a fiber a CUDA thread, switched at barriers.
// What depends on no kernel is in fibers.cpp, and compiled once.
//
// A thread runs until it waits (barrier, shuffle, vote), pauses (atomic, fence, __nanosleep) or
// exits. `run` then resumes the next one, in the order of the schedule. What a warp or block must
// do together is checked when the last thread arrives, and every failure names a thread.
#pragma once
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Libraries of one process must not share what is theirs.
#pragma GCC visibility push(hidden)
namespace cuda_on_cpu {

enum class State : uint8_t { READY, PAUSED, AT_WARP, AT_BLOCK, EXITED };
enum Schedule { FORWARD, REVERSE, SHUFFLED, INTERLEAVED };
enum Jump { FIRST, SWITCHED, FAILED };

constexpr size_t STACK = 256 << 10, PAGE = 4096;
constexpr int RESIDENT = 4;             // blocks that run at a time under INTERLEAVED
constexpr long PATIENCE = 1000;         // rounds in which nobody does anything but pause
constexpr unsigned char POISON = 0xA5;

struct Block;

struct Fiber {
    Block* block;
    uint3 index;
    int number, lane, warp;
    State state;
    bool started;
    ucontext_t start;
    jmp_buf position;
    const char* call;                   // the collective operation it waits in ...
    int line;                           // ... and the line of a block barrier
    unsigned mask;
    int source;                         // lane a shuffle reads
    alignas(8) unsigned char given[8], received[8];
};

struct Block {
    uint3 index;
    std::vector<Fiber> fibers;
    std::vector<unsigned> arrived;      // of each warp, the lanes that wait
    std::vector<unsigned char> shared;  // static shared memory, while other blocks run
    std::vector<unsigned char> dynamic;
    int predicates, votes;              // how many threads gave a true one to a block barrier
};

struct Machine {
    dim3 grid, threads;
    Schedule schedule;
    void (*entry)(void*);
    void* arguments;
    size_t dynamic_bytes;
    std::vector<Block> blocks;
    Block* loaded;                      // whose static shared memory is in place
    Fiber* current;
    jmp_buf scheduler;
    bool inside;                        // a fiber runs, not the scheduler
    uint64_t random;
    char error[1024];
};
extern Machine machine;                 // one launch at a time: raw_module.py holds a lock

inline Fiber& self() { return *machine.current; }
inline Block& block() { return *self().block; }

[[noreturn]] void fail(const Fiber& f, const char* message);

// Where other threads may run in between: atomics, fences, __nanosleep.
void pause(bool always = false);

unsigned char* dynamic_shared();

// ---- what the lanes of a warp do together -----------------------------------------------------

unsigned lanes_running(const Fiber& f);

// Wait for the lanes of `mask`; the last to arrive checks that they agree, and calls `deliver`.
void meet(unsigned mask, const char* call, void (*deliver)(Fiber* lanes, unsigned mask));
void deliver_nothing(Fiber* lanes, unsigned mask);
void deliver_values(Fiber* lanes, unsigned mask);

template <typename T>
inline T shuffle(unsigned mask, T value, int source, const char* call) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                  "shuffles move numbers of 4 or 8 bytes");
    Fiber& f = self();
    memcpy(f.given, &value, sizeof value);
    f.source = source;
    meet(mask, call, deliver_values);
    memcpy(&value, f.received, sizeof value);
    return value;
}

unsigned ballot(unsigned mask, bool predicate, const char* call);

// ---- what a block does together ---------------------------------------------------------------

// Returns how many threads gave a true predicate.
int block_barrier(const char* call, int line, bool predicate = false);

// ---- launching --------------------------------------------------------------------------------

// One mapping for the stacks of all modules, which raw_module.py owns, kept from launch to launch:
// a pool for each module would exhaust the mappings that Linux grants to a process. A page below
// each stack catches overflow.
struct Stacks { char* memory; size_t count; };

// Run all blocks of the machine's grid; false on failure.
bool run_grid(Stacks& stacks);

struct Argument {                       // as raw_module.py writes it
    void* value;
    char kind;                          // 'p' for a device array, else NumPy's kind of a scalar
    char element_kind;
    int size;                           // bytes of the scalar, or of an element
};

template <typename P>
inline const char* mismatch(const Argument& a) {
    if constexpr (std::is_pointer_v<P>) {
        using E = std::remove_cv_t<std::remove_pointer_t<P>>;
        if (a.kind != 'p') return "a scalar, and the kernel declares a pointer";
        if constexpr (std::is_arithmetic_v<E>) {
            if (sizeof(E) != a.size) return "an array whose elements have another size";
            if (std::is_floating_point_v<E> && a.element_kind != 'f' && a.element_kind != 'c')
                return "an array of integers, and the kernel declares floating-point numbers";
            // float16 travels as unsigned short: its bits.
            if (!std::is_floating_point_v<E> && a.element_kind == 'f' && a.size > 2)
                return "an array of floating-point numbers, and the kernel declares integers";
        }
    } else {
        if (a.kind == 'p') return "a device array, and the kernel declares a value";
        if (sizeof(P) != a.size) return "a scalar of another size";
        if (std::is_floating_point_v<P> != (a.kind == 'f')) return "a scalar of another kind";
    }
    return nullptr;
}

template <typename... P>
struct Call {
    void (*kernel)(P...);
    const Argument* arguments;

    template <size_t... I>
    void apply(std::index_sequence<I...>) {
        kernel(*(std::remove_reference_t<P>*)arguments[I].value...);
    }
    static void enter(void* call) {
        static_cast<Call*>(call)->apply(std::index_sequence_for<P...>{});
    }
    // False, and a message, where the arguments are not those of the kernel.
    bool check(int count) {
        if (count != sizeof...(P)) {
            snprintf(machine.error, sizeof machine.error,
                     "%d arguments given, the kernel declares %zu", count, sizeof...(P));
            return false;
        }
        int i = 0;
        auto good = [&](const char* wrong) {
            if (wrong)
                snprintf(machine.error, sizeof machine.error, "argument %d is %s", i, wrong);
            return ++i, !wrong;
        };
        return (good(mismatch<P>(arguments[i])) && ...);
    }
};

struct Launch {                         // as raw_module.py writes it
    unsigned grid[3], threads[3];
    size_t dynamic_bytes;
    int schedule, count;
    const Argument* arguments;
    uint64_t seed;
    Stacks* stacks;
};

// Returns 0, or 1 with a message in `error`.
template <typename... P>
inline int launch(void (*kernel)(P...), const Launch& l, char* error, size_t size) {
    Call<P...> call{kernel, l.arguments};
    machine = Machine{};
    machine.grid = {l.grid[0], l.grid[1], l.grid[2]};
    machine.threads = {l.threads[0], l.threads[1], l.threads[2]};
    machine.schedule = Schedule(l.schedule);
    machine.entry = Call<P...>::enter;
    machine.arguments = &call;
    machine.dynamic_bytes = l.dynamic_bytes;
    machine.random = l.seed;
    const bool good = call.check(l.count) && run_grid(*l.stacks);
    snprintf(error, size, "%s", machine.error);
    return good ? 0 : 1;
}

}  // namespace cuda_on_cpu
#pragma GCC visibility pop
