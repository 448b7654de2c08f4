// Kernels around the functions of one step: what they compute at each state is printed from the
// graph (cuda_program.py), where the numbers come from and go to is in memory.cu.

// Threads of a block, and blocks that a multiprocessor has room for: 512 threads hide the latency
// of a step. Left to itself, the compiler spills registers to make room for more.
#define BOUNDS __launch_bounds__(128, sizeof(real) == 4 ? 4 : 2)

// ---- parts of kernels -------------------------------------------------------------------------

// Becomes NaN, and stays it, where a number is not finite.
template <int N>
__device__ __forceinline__ void spoil(real& nothing, const real (&values)[N], int count)
{
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (i < count) nothing = fma(values[i], real(0), nothing);
}
__device__ __forceinline__ bool is_finite(const real (&state)[K])
{
    real nothing = real(0);
    spoil(nothing, state, K);
    return nothing == real(0);
}
// Equal, or both NaN.
__device__ __forceinline__ bool is_same(const real (&a)[K], const real (&b)[K])
{
    bool same = true;
#pragma unroll
    for (int i = 0; i < K; ++i) same = same && (a[i] == b[i] || (a[i] != a[i] && b[i] != b[i]));
    return same;
}
// NaN agrees with nothing; nor does infinity, whose difference to itself is NaN.
__device__ __forceinline__ bool is_close(
    const real (&a)[K], const real (&old)[K], real atol, real rtol)
{
    bool met = true;
#pragma unroll
    for (int i = 0; i < K; ++i) met = met && fabs(a[i] - old[i]) - rtol * fabs(old[i]) <= atol;
    return met;
}
// The greater, NaN if either is.
__device__ __forceinline__ real greater(real a, real b) { return a >= b || a != a ? a : b; }

__device__ __forceinline__ real greatest_difference(const real (&a)[K], const real (&b)[K])
{
    real most = real(0);
#pragma unroll
    for (int i = 0; i < K; ++i) most = greater(most, fabs(a[i] - b[i]));
    return most;
}
__device__ __forceinline__ unsigned bits(float a) { return __float_as_uint(a); }
__device__ __forceinline__ Count bits(double a) { return Count(__double_as_longlong(a)); }

// Numbers that are not negative are ordered as their bits are, with NaN above all: so the result
// depends on no order. Most threads find that theirs is not greater.
__device__ __forceinline__ void raise(real* place, real value)
{
    typedef decltype(bits(value)) Bits;
    const Bits found = bits(fabs(value));
    if (found > *reinterpret_cast<volatile Bits*>(place))
        atomicMax(reinterpret_cast<Bits*>(place), found);
}
// Over neighbouring threads, a power of two of them; always in the same order.
__device__ __forceinline__ real group_greatest(real value, int group)
{
    for (int apart = group / 2; apart; apart /= 2)
        value = greater(value, __shfl_xor_sync(ALL, value, apart));
    return value;
}
__device__ __forceinline__ real group_sum(real value, int group)
{
    for (int apart = group / 2; apart; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    return value;
}
__device__ __forceinline__ void add_to(Count* place, Count value)
{
    for (int apart = WARP / 2; apart; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    if (threadIdx.x % WARP == 0 && value) atomicAdd(place, value);
}
// total + error, to twice the precision: Knuth, TAOCP vol. 2, 4.2.2, theorem B.
__device__ __forceinline__ void add_exactly(real& total, real& error, real value)
{
    const real sum = total + value, part = sum - total;
    error += (total - (sum - part)) + (value - part);
    total = sum;
}

__device__ __forceinline__ void load_lane(const real* array, Index at, Index n, real (&out)[K])
{
#pragma unroll
    for (int i = 0; i < K; ++i) out[i] = array[at + i * n];
}
__device__ __forceinline__ void store_lane(real* array, Index at, Index n, const real (&v)[K])
{
#pragma unroll
    for (int i = 0; i < K; ++i) array[at + i * n] = v[i];
}

// A square matrix times another, or times a vector.
__device__ __forceinline__ void multiply(const real (&A)[K][K], real (&B)[K][K])
{
#pragma unroll
    for (int j = 0; j < K; ++j) {
        real column[K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            column[i] = A[i][0] * B[0][j];
#pragma unroll
            for (int l = 1; l < K; ++l) column[i] = fma(A[i][l], B[l][j], column[i]);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) B[i][j] = column[i];
    }
}
__device__ __forceinline__ void multiply(const real (&A)[K][K], real (&v)[K])
{
    real product[K];
#pragma unroll
    for (int i = 0; i < K; ++i) {
        product[i] = A[i][0] * v[0];
#pragma unroll
        for (int l = 1; l < K; ++l) product[i] = fma(A[i][l], v[l], product[i]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) v[i] = product[i];
}
__device__ __forceinline__ void set_identity(real (&A)[K][K])
{
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) A[i][j] = real(i == j);
}
// Of a chunk's linear map, in arrays (P, B, K, K, n) and (P, B, K, n).
__device__ __forceinline__ void store_map(
    const Work& w, Index chunk, real* blocks, const real (&A)[K][K])
{
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) blocks[w.state(chunk, K * K) + (i * K + j) * w.n] = A[i][j];
}

// ---- rollout and shooting ---------------------------------------------------------------------

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

// ---- maps -------------------------------------------------------------------------------------

// f of many states with their drives, and with Q = K K its derivatives too: no row needs another.
//
// Reads DRIVES + K numbers and writes K + Q: the floor that everything else is compared with.
template <int Q>
__global__ void BOUNDS apply(
    const real* h, const real* x, const real* theta, real* f, real* A, Index rows, Index m, Index n)
{
    // A grid of rows and channels: to divide a thread's number by n would take longer than the step.
    const Index row = Index(blockIdx.x) * blockDim.y + threadIdx.y;
    const Index c = Index(blockIdx.y) * blockDim.x + threadIdx.x;
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

// ---- Newton's method --------------------------------------------------------------------------

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

// ---- the adjoint ------------------------------------------------------------------------------

// What a chunk makes, backwards, of what comes from later: ``blocks`` times it plus ``rhs``, with
// the last chunk first, as recurrences are solved forwards.
template <class Memory>
__global__ void BOUNDS adjoint_maps(
    const real* x, const real* theta, const real* h0, const real* h, const real* g, real* blocks,
    real* rhs, Index T, Index B, Index m, Index n, Index S, Index P, Index room)
{
    Memory memory(T, B, n, n, S, P, room);
    const Work& w = memory.work;
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Input<States, 1> states(memory, h, K * n, h0);
    typename Memory::template Input<States> gradients(memory, g, K * n);
    real parameters[AT_LEAST_ONE_PARAMETER], carry[K], M[K][K];
    if (w.exists()) step::load_parameters(theta, n, w.c, parameters);
    set_identity(M);
#pragma unroll
    for (int i = 0; i < K; ++i) carry[i] = real(0);
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
        states.fetch(memory, s0);
        gradients.fetch(memory, s0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            if (!w.has(s0 + j)) continue;
            real now[Drives::N], before[K], g_now[K], f[K], A[K][K], transposed[K][K];
            drives.take(memory, s0, j, now);
            states.take(memory, s0, j, before);
            gradients.take(memory, s0, j, g_now);
            linearize(before, now, parameters, f, A);
#pragma unroll
            for (int i = 0; i < K; ++i) {
                carry[i] += g_now[i];
#pragma unroll
                for (int l = 0; l < K; ++l) transposed[i][l] = A[l][i];
            }
            multiply(transposed, carry);
            multiply(transposed, M);
        }
    }
    if (!w.exists()) return;
    store_map(w, P - 1 - w.p, blocks, M);
    store_lane(rhs, w.state(P - 1 - w.p), n, carry);
}

// The reversed recurrence and all gradients: lam_t = g_t + carry, carry = A_t^T lam_t,
// dx_t = lam_t^T df/dx_t, and lam_t^T df/dtheta summed over the steps of a chunk.
//
// `carries` (P - 1, B, d): from adjoint_maps, the last chunk first; nothing with one chunk. `dh0`
// is what arrives before the first step. `products` (2, P, B, PARAMETERS, n): sums and, a rounding
// error smaller, what they lack. `shared` (T, B, SHARED_DRIVES, W): gradients of drives that
// channels share, summed over each of W groups of channels; with one group they are in dx.
//
// Reads DRIVES + 2 K numbers a step and writes DRIVES; the forward pass reads DRIVES and writes K.
template <class Memory>
__global__ void BOUNDS adjoint(
    const real* x, const real* theta, const real* h0, const real* h, const real* g,
    const real* carries, real* dx, real* dh0, real* products, real* shared, Index T, Index B,
    Index m, Index n, Index S, Index P, Index room, Index width, int group)
{
    Memory memory(T, B, n, width, S, P, room);
    const Work& w = memory.work;
    typename Memory::template Input<Drives> drives(memory, x, m);
    typename Memory::template Input<States, 1> states(memory, h, K * n, h0);
    typename Memory::template Input<States> gradients(memory, g, K * n);
    typename Memory::template Output<ChannelDrives> dx_out(memory, dx, m);
    typename Memory::template Output<SharedDrives> shared_out(memory, dx, m, dx_out);
    real parameters[AT_LEAST_ONE_PARAMETER], carry[K];
    real total[AT_LEAST_ONE_PARAMETER], error[AT_LEAST_ONE_PARAMETER];
#pragma unroll
    for (int i = 0; i < AT_LEAST_ONE_PARAMETER; ++i) total[i] = error[i] = real(0);
#pragma unroll
    for (int i = 0; i < K; ++i) carry[i] = real(0);
    if (w.exists()) {
        step::load_parameters(theta, n, w.c, parameters);
        if (w.p + 1 < P) load_lane(carries, w.state(P - 2 - w.p), n, carry);
    }
    for (Index s0 = 0; s0 < S; s0 += Memory::TILE) {
        drives.fetch(memory, s0);
        states.fetch(memory, s0);
        gradients.fetch(memory, s0);
        real part[AT_LEAST_ONE_PARAMETER];
#pragma unroll
        for (int i = 0; i < AT_LEAST_ONE_PARAMETER; ++i) part[i] = real(0);
#pragma unroll Memory::UNROLL
        for (int j = 0; j < Memory::TILE; ++j) {
            const bool has = w.has(s0 + j);
            real by_drive[Drives::N];
#pragma unroll
            for (int i = 0; i < Drives::N; ++i) by_drive[i] = real(0);
            if (has) {
                real now[Drives::N], before[K], lam[K], found[K + DRIVES + PARAMETERS];
                drives.take(memory, s0, j, now);
                states.take(memory, s0, j, before);
                gradients.take(memory, s0, j, lam);
#pragma unroll
                for (int i = 0; i < K; ++i) lam[i] += carry[i];
                step::pull_back(before, now, parameters, lam, found);
#pragma unroll
                for (int i = 0; i < K; ++i) carry[i] = found[i];
#pragma unroll
                for (int i = 0; i < DRIVES; ++i) by_drive[i] = found[K + i];
#pragma unroll
                for (int i = 0; i < PARAMETERS; ++i) part[i] += found[K + DRIVES + i];
                dx_out.put(memory, s0, j, by_drive);
            }
            if constexpr (SHARED_DRIVES > 0) {
#pragma unroll
                for (int i = 0; i < SHARED_DRIVES; ++i)
                    by_drive[i] = group_sum(by_drive[i], group);
                if (has && w.c % group == 0) {
                    if (width == group)
                        shared_out.put(memory, s0, j, by_drive);
                    else {
                        const Index t = w.template time<BACKWARD>(s0 + j);
                        const Index row = (t * B + w.b) * SHARED_DRIVES;
#pragma unroll
                        for (int i = 0; i < SHARED_DRIVES; ++i)
                            shared[(row + i) * (width / group) + w.c / group] = by_drive[i];
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < PARAMETERS; ++i) add_exactly(total[i], error[i], part[i]);
        dx_out.flush(memory, s0);
    }
    if (!w.exists()) return;
    if (w.p == 0) store_lane(dh0, w.state(0), n, carry);
#pragma unroll
    for (int i = 0; i < PARAMETERS; ++i) {
        const Index at = w.state(w.p, PARAMETERS) + i * n;
        products[at] = total[i];
        // Of a sum that is not finite nothing is known to be missing.
        products[P * B * PARAMETERS * n + at] = error[i] - error[i] == real(0) ? error[i] : real(0);
    }
}
