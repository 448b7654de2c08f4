// Maps of all states at once, and Newton's method: an iteration in one pass (cuda_kernels.py), or
// all iterations together (cuda_wavefront.py).

// f of many states with their drives, and with Q = K K its derivatives too: no row needs another.
//
// Reads DRIVES + K numbers and writes K + Q: the floor that everything else is compared with.
template <int Q>
__global__ void BOUNDS apply(
    const real* h, const real* x, const real* theta, real* f, real* A, Index rows, Index m, Index n)
{
    // A grid of rows and channels: to divide a thread's number by n would take longer than the step.
    const Index row = Index(blockIdx.x) * blockDim.y + threadIdx.y;
    const Index across = Index(blockIdx.z) * gridDim.y + blockIdx.y;
    const Index c = across * blockDim.x + threadIdx.x;
    if (row >= rows || c >= n) return;
    real parameters[AT_LEAST_ONE_PARAMETER], now[Drives::N], state[K];
    step::load_parameters(theta, n, c, parameters);
    Drives::load(x + row * m, n, c, now);
    States::load(h + row * K * n, n, c, state);
    if constexpr (Q == 0) {
        step::advance(state, now, parameters, state);
        States::store(f + row * K * n, n, c, state);
    } else {
        real found[K + Q];
        step::linearize(state, now, parameters, found);
#pragma unroll
        for (int i = 0; i < K; ++i) f[(row * K + i) * n + c] = found[i];
#pragma unroll
        for (int i = 0; i < Q; ++i) A[(row * Q + i) * n + c] = found[K + i];
    }
}

__device__ __forceinline__ void linearize(
    const real (&state)[K], const real (&now)[Drives::N],
    const real (&parameters)[AT_LEAST_ONE_PARAMETER], real (&f)[K], real (&A)[K][K])
{
    real found[K + K * K];
    step::linearize(state, now, parameters, found);
#pragma unroll
    for (int i = 0; i < K; ++i) {
        f[i] = found[i];
#pragma unroll
        for (int j = 0; j < K; ++j) A[i][j] = found[K + i * K + j];
    }
}

// What a chunk makes of a change before it: ``blocks (P, B, K, K, n)`` times it plus ``rhs``.
//
// Reads DRIVES + K numbers a step and writes nothing but a map for each chunk.
template <class Memory>
__global__ void BOUNDS newton_maps(
    const real* x, const real* theta, const real* h0, const real* h, real* blocks, real* rhs,
    Index T, Index B, Index m, Index n, Index S, Index P, Index room)
{
    Memory memory(T, B, n, n, S, P, room);
    const Work& w = memory.work;
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Input<States> states(memory, h, K * n);
    real parameters[AT_LEAST_ONE_PARAMETER], before[K], change[K], G[K][K];
    if (w.exists()) {
        step::load_parameters(theta, n, w.c, parameters);
        load_lane(w.p ? h : h0, w.state(w.p ? w.p * S - 1 : 0), n, before);
    }
    set_identity(G);
#pragma unroll
    for (int i = 0; i < K; ++i) change[i] = real(0);
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
        states.fetch(memory, s0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            if (!w.has(s0 + j)) continue;
            real now[Drives::N], state[K], f[K], A[K][K];
            drives.take(memory, s0, j, now);
            states.take(memory, s0, j, state);
            linearize(before, now, parameters, f, A);
            multiply(A, change);
            multiply(A, G);
#pragma unroll
            for (int i = 0; i < K; ++i) {
                change[i] += f[i] - state[i];
                before[i] = state[i];
            }
        }
    }
    if (!w.exists()) return;
    store_map(w, w.p, blocks, G);
    store_lane(rhs, w.state(w.p), n, change);
}

// One iteration of Newton's method, moved_t = f_t + A_t (moved_{t-1} - h_{t-1}), with |F_t| and
// |h_t|.
//
// `changes` (P - 1, B, d): what chunks leave as the change of their last states, from newton_maps;
// nothing with one chunk. `norms` (W, 2, T, B): the greatest of each of W groups of the channels of
// a row. Reads DRIVES + K numbers a step and writes K + 2/group. What the step before is needed for
// is one product, so that no latency has to be hidden beside that of the loads.
template <class Memory>
__global__ void BOUNDS newton(
    const real* x, const real* theta, const real* h0, const real* h, const real* changes,
    real* moved, real* norms, Index T, Index B, Index m, Index n, Index S, Index P, Index room,
    Index width, int group)
{
    Memory memory(T, B, n, width, S, P, room);
    const Work& w = memory.work;
    real* const far_rows = norms + w.c / group * 2 * T * B;
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Input<States> states(memory, h, K * n);
    typename Memory::template Output<States> next(memory, moved, K * n);
    typename Memory::template Output<Norm> far_out(memory, far_rows, 1);
    typename Memory::template Output<Norm> large_out(memory, far_rows + T * B, 1);
    real parameters[AT_LEAST_ONE_PARAMETER], before[K], change[K];
#pragma unroll
    for (int i = 0; i < K; ++i) change[i] = real(0);
    if (w.exists()) {
        step::load_parameters(theta, n, w.c, parameters);
        load_lane(w.p ? h : h0, w.state(w.p ? w.p * S - 1 : 0), n, before);
        if (w.p) load_lane(changes, w.state(w.p - 1), n, change);
    }
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
        states.fetch(memory, s0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            const bool has = w.has(s0 + j);
            real far[1] = {real(0)}, large[1] = {real(0)};
            if (has) {
                real now[Drives::N], state[K], found[2 * K], result[K];
                drives.take(memory, s0, j, now);
                states.take(memory, s0, j, state);
                step::correct(before, now, parameters, change, found);
#pragma unroll
                for (int i = 0; i < K; ++i) {
                    // At first f itself, even where the derivative is infinite.
                    result[i] = w.p == 0 && s0 + j == 0 ? found[K + i] : found[i];
                    far[0] = greater(far[0], fabs(state[i] - found[K + i]));
                    large[0] = greater(large[0], fabs(state[i]));
                    before[i] = state[i];
                    change[i] = result[i] - state[i];
                }
                next.put(memory, s0, j, result);
            }
            far[0] = group_greatest(far[0], group);
            large[0] = group_greatest(large[0], group);
            if (has && w.c % group == 0) {
                far_out.put(memory, s0, j, far);
                large_out.put(memory, s0, j, large);
            }
        }
        next.flush(memory, s0);
        far_out.flush(memory, s0);
        large_out.flush(memory, s0);
    }
}

// f of one state, and the step of Newton's method that follows where the next iterate's state before
// it is known.
__device__ __forceinline__ void iterate_again(
    const real (&state)[K], const real (&next)[K], const real (&now)[Drives::N],
    const real (&parameters)[AT_LEAST_ONE_PARAMETER], real (&f)[K], real (&moved)[K])
{
    real change[K], found[2 * K];
#pragma unroll
    for (int i = 0; i < K; ++i) change[i] = next[i] - state[i];
    step::correct(state, now, parameters, change, found);
#pragma unroll
    for (int i = 0; i < K; ++i) {
        moved[i] = found[i];
        f[i] = found[K + i];
    }
}

// P iterations of Newton's method through some steps together: iterate i + 1 at a step needs only
// the iterates at the step before, which all stay in registers.
//
// `states` (P + 1, B, d): iterates before the first of these steps, number `from` of all; `left`:
// after the last. Iterate 0 is `guess`, or without GIVEN f(0, x). Iterate i is the one before it up
// to step since[i]: there that had converged. `h` becomes iterate P. `norms` (W, P + 1, 2, T, B):
// |F_t| and |h_t| of each iterate, the greatest of each of W groups of the channels of a row.
//
// Reads DRIVES numbers a step, with GIVEN K more, and writes K + 2 (P + 1)/group. Evaluates f and A
// P times and f once more, or twice: P + 1 chains of one step, which hide each other's latency.
template <class Memory, int P, bool GIVEN>
__global__ void BOUNDS front(
    const real* x, const real* theta, const real* guess, const real* states, const Index* __restrict__ since,
    real* left, real* h, real* norms, Count* spoiled, Index T, Index B, Index m, Index n, Index S,
    Index chunks, Index room, Index width, int group, Index from)
{
    Memory memory(T, B, n, width, S, chunks, room);
    const Work& w = memory.work;
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Input<States> guesses(memory, GIVEN ? guess : h, K * n);
    typename Memory::template Output<States> last(memory, h, K * n);
    real parameters[AT_LEAST_ONE_PARAMETER], before[P + 1][K], nothing = real(0);
    if (w.exists()) {
        step::load_parameters(theta, n, w.c, parameters);
#pragma unroll
        for (int i = 0; i <= P; ++i) load_lane(states, w.state(i), n, before[i]);
    }
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
        guesses.fetch(memory, s0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            const Index t = s0 + j;
            const bool has = w.has(t);
            real far[P + 1] = {}, large[P + 1] = {};
            if (has) {
                real now[Drives::N], state[K] = {};
                drives.take(memory, s0, j, now);
                spoil(nothing, now, DRIVES);
                if constexpr (GIVEN)
                    guesses.take(memory, s0, j, state);
                else
                    step::advance(state, now, parameters, state);
#pragma unroll
                for (int i = 0; i <= P; ++i) {
                    real f[K], following[K];
                    if (i < P) {
                        const bool frozen = from + t < since[i + 1];
                        iterate_again(before[i], before[i + 1], now, parameters, f, following);
#pragma unroll
                        for (int l = 0; l < K; ++l) {
                            // At first f itself, even where the derivative is infinite.
                            const real moved = from + t == 0 ? f[l] : following[l];
                            following[l] = frozen ? state[l] : moved;
                        }
                    } else {
                        step::advance(before[i], now, parameters, f);
                        last.put(memory, s0, j, state);
                    }
#pragma unroll
                    for (int l = 0; l < K; ++l) {
                        far[i] = greater(far[i], fabs(state[l] - f[l]));
                        large[i] = greater(large[i], fabs(state[l]));
                        before[i][l] = state[l];
                        if (i < P) state[l] = following[l];
                    }
                }
            }
            group_greatest(far, group);
            group_greatest(large, group);
            if (has && w.c % group == 0) {
                real* row = norms + (w.c / group * (P + 1) * 2 * T + t) * B + w.b;
#pragma unroll
                for (int i = 0; i <= P; ++i) {
                    row[2 * i * T * B] = far[i];
                    row[(2 * i + 1) * T * B] = large[i];
                }
            }
        }
        last.flush(memory, s0);
    }
    if (!w.exists()) return;
#pragma unroll
    for (int i = 0; i <= P; ++i) store_lane(left, w.state(i), n, before[i]);
    if (nothing != real(0)) *spoiled = 1;
}

// What those norms say: one row of one iterate a thread.
//
// Of each iterate and sequence: `far` (P + 1, B), the greatest |F_t|; `account`, two numbers and
// then (P + 1, B): whether any |F_t| exceeds atol + rtol |h_t|. The first number becomes the first
// step at which that of the last iterate does, the second 1 if any norm is not finite.
__global__ void BOUNDS judge(
    const real* norms, real* far, Count* account, Index groups, Index iterates, Index T, Index B,
    real atol, real rtol)
{
    const Index row = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= iterates * T * B) return;
    const Index i = row / (T * B), t = row / B % T, b = row % B;
    real worst[2] = {real(0), real(0)};
    for (Index g = 0; g < groups; ++g)
        for (int l = 0; l < 2; ++l)
            worst[l] = greater(worst[l], norms[(((g * iterates + i) * 2 + l) * T + t) * B + b]);
    raise(far + i * B + b, worst[0]);
    const real nothing = fma(worst[0], real(0), worst[1] * real(0));
    if (nothing != real(0)) account[1] = 1;
    if (!(worst[0] <= atol + rtol * worst[1])) {
        account[2 + i * B + b] = 1;
        if (i == iterates - 1) atomicMin(account, Count(t));
    }
}
