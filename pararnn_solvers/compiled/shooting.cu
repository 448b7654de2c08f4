// Rollout and multiple shooting: one chunk of one lane a thread (cuda_shooting.py).

// Roll each chunk out from starts (P, B, d) into h, and leave its last state in `ends`, and with
// C > K its derivative by the first in `tangents` (P, B, K, K, n). With one chunk: the rollout.
// `spoiled` becomes 1 if any drive or state is not finite.
//
// Reads the drives of a step and writes its state, once: DRIVES + K numbers, what a map does. The
// chain of one step, some 250 cycles for a GRU by our count, is hidden by other warps, 16 for each
// multiprocessor. A float32 GRU takes about 120 instructions (sm_90) and 16 bytes a step: 132
// multiprocessors at 1.98 GHz issue 280e9 such steps a second, 4.8 TB/s carry 300e9.
template <class Memory, int C>
__global__ void BOUNDS sweep(
    const real* x, const real* theta, const real* starts, real* h, real* ends, real* tangents,
    Count* spoiled, Index T, Index B, Index m, Index n, Index S, Index P, Index room)
{
    Memory memory(T, B, n, n, S, P, room);
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Output<States> states(memory, h, K * n);
    const Work& w = memory.work;
    real parameters[AT_LEAST_ONE_PARAMETER], state[C], nothing = real(0);
    if (w.exists()) {
        step::load_parameters(theta, n, w.c, parameters);
#pragma unroll
        for (int i = 0; i < K; ++i) state[i] = starts[w.state(w.p) + i * n];
#pragma unroll
        for (int i = K; i < C; ++i) state[i] = real((i - K) / K == (i - K) % K);
    }
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            if (!w.has(s0 + j)) continue;
            real now[Drives::N], next[K];
            drives.take(memory, s0, j, now);
            step::advance(state, now, parameters, state);
#pragma unroll
            for (int i = 0; i < K; ++i) next[i] = state[i];
            spoil(nothing, now, DRIVES);
            spoil(nothing, next, K);
            states.put(memory, s0, j, next);
        }
        states.flush(memory, s0);
    }
    if (!w.exists()) return;
#pragma unroll
    for (int i = 0; i < K; ++i) ends[w.state(w.p) + i * n] = state[i];
#pragma unroll
    for (int i = K; i < C; ++i) tangents[w.state(w.p, K * K) + (i - K) * n] = state[i];
    if (nothing != real(0)) *spoiled = 1;
}

// Start each chunk at the end of the one before, as it was before this pass, where that is not
// where it started; run it again until it meets what is stored.
//
// `starts` (P, B, d): where chunks started. `ends`: where they ended; `new_ends`: where they do
// now.
// `right` (B, n): so many chunks of a lane are known to have started right; only these may end in
// what is not finite and be believed. Of each sequence: `jump`, the greatest difference between
// starts and ends before; `left`, between chunks and what they met; `status`, bits of
enum : Count { MOVED = 1, DOUBTED = 2, DIVERGED = 4 };
// where an end changed that a chunk starts from; where an end was not believed; and where one that
// is right is not finite: then nothing more is done. `taken` counts the steps of all lanes.
//
// Until they meet, a chunk reads DRIVES + K numbers a step and writes K; afterwards nothing.
template <class Memory>
__global__ void BOUNDS meet(
    const real* x, const real* theta, const real* h0, real* starts, const real* ends,
    real* new_ends, const Index* right, real* h, real* jump, real* left, Count* status,
    Count* spoiled, Count* taken, Index T, Index B, Index m, Index n, Index S, Index P, Index room,
    real atol, real rtol)
{
    Memory memory(T, B, n, n, S, P, room);
    const Work& w = memory.work;
    real parameters[AT_LEAST_ONE_PARAMETER], state[K], end[K], nothing = real(0);
    bool goes = w.exists();
    Count count = 0;
    if (goes) {
        step::load_parameters(theta, n, w.c, parameters);
        real before[K];
        load_lane(starts, w.state(w.p), n, before);
        load_lane(ends, w.state(w.p), n, end);
        if (w.p)
            load_lane(ends, w.state(w.p - 1), n, state);
        else
            load_lane(h0, w.state(0), n, state);
        raise(jump + w.b, greatest_difference(state, before));
        if (!is_finite(state)) {
            atomicOr(status + w.b, w.p <= right[w.b * n + w.c] ? Count(DIVERGED) : Count(DOUBTED));
            goes = false;
        }
        goes = goes && !is_same(state, before);
        if (goes) store_lane(starts, w.state(w.p), n, state);
    }
    bool done = !goes;
    if (memory.any(goes)) {
        typename Memory::template Input<Drives> drives(memory, x, m);
        typename Memory::template Input<States> stored(memory, h, K * n);
        typename Memory::template Output<States> states(memory, h, K * n, stored);
        for (Index s0 = 0; s0 < S && memory.any(!done); s0 += Memory::TILE) {
            drives.fetch(memory, s0);
            stored.fetch(memory, s0);
#pragma unroll Memory::UNROLL
            for (int j = 0; j < Memory::TILE; ++j) {
                if (done || !w.has(s0 + j)) continue;
                real now[Drives::N], old[K];
                drives.take(memory, s0, j, now);
                stored.take(memory, s0, j, old);
                step::advance(state, now, parameters, state);
                spoil(nothing, state, K);
                if (is_close(state, old, atol, rtol)) {
                    raise(left + w.b, greatest_difference(state, old));
                    done = true;
                    continue;
                }
                ++count;
                states.put(memory, s0, j, state);
            }
            states.flush(memory, s0);
        }
    }
    if (goes && !done) {
        if (w.p + 1 < P && !is_same(state, end)) atomicOr(status + w.b, Count(MOVED));
#pragma unroll
        for (int i = 0; i < K; ++i) end[i] = state[i];
    }
    if (w.exists()) {
        store_lane(new_ends, w.state(w.p), n, end);
        if (nothing != real(0)) *spoiled = 1;
    }
    add_to(taken, count);
}

// How many chunks of each lane started right, (B, n): for lanes that end in what is not finite.
__global__ void BOUNDS count_right(
    const real* h0, const real* starts, const real* ends, Index* right, Index B, Index n, Index P)
{
    const Index lane = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (lane >= B * n) return;
    Work w{P, B, n, 1, P};
    w.place<FORWARD>(0, lane, n, true);
    Index p = 0;
    for (; p < P; ++p) {
        real begun[K], true_start[K];
        load_lane(starts, w.state(p), n, begun);
        if (p)
            load_lane(ends, w.state(p - 1), n, true_start);
        else
            load_lane(h0, w.state(0), n, true_start);
        if (!is_same(begun, true_start)) break;
    }
    right[lane] = p;
}
