// The reversed recurrence and the gradients, in one pass (cuda_kernels.py).

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
