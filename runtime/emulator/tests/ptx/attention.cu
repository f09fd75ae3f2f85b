// The emulator's own attention test kernel: prefill for one bf16 head dimension of 64, causal with a sink and a sliding window.
//
// A producer warpgroup feeds two rings (K and V) by tensor copies; two consumer warpgroups of 64 query rows each overlap the softmax
// of one tile with the PV product of the tile before, and take turns at the tensor cores through named barriers. The output leaves by
// tensor stores. Compile with NVRTC for sm_90a; attention.ptx beside this file is what NVRTC made of it.

typedef unsigned long long u64;
typedef unsigned u32;
struct alignas(64) TensorMap { u64 opaque[16]; };

enum { kD = 64, kN = 64, kStages = 2, kGroups = 2, kTile = kN * kD * 2 };

#define ACC32(d) \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), \
  "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), \
  "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), \
  "+f"(d[30]), "+f"(d[31])
#define REGS32 \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

// S = Q K^T: both operands in shared memory, K-major.
__device__ __forceinline__ void qk(float (&d)[32], u64 a, u64 b, int add) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGS32 ", %32, %33, p, 1, 1, 0, 0;\n}\n"
               : ACC32(d) : "l"(a), "l"(b), "r"(add));
}
// O += P V: P in registers, V transposed.
__device__ __forceinline__ void pv(float (&d)[32], u32 a0, u32 a1, u32 a2, u32 a3, u64 b, int add) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGS32 ", {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"
               : ACC32(d) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add));
}
__device__ __forceinline__ void wg_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wg_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wg_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ u64 field(u32 x) { return (x & 0x3FFFF) >> 4; }
// Rows of 128 bytes with the 128-byte swizzle, groups of eight rows 1024 bytes apart: K-major Q and K, and MN-major V.
__device__ __forceinline__ u64 desc(u32 a) { return field(a) | 1ull << 16 | field(1024) << 32 | 1ull << 62; }

__device__ __forceinline__ void bar_init(u32 b, u32 n) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(n)); }
__device__ __forceinline__ void bar_expect(u32 b, u32 n) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(n) : "memory");
}
__device__ __forceinline__ void bar_arrive(u32 b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory"); }
__device__ __forceinline__ void bar_wait(u32 b, u32 parity) {
  asm volatile("{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra.uni WAIT_%=;\n}" ::"r"(b), "r"(parity)
               : "memory");
}
__device__ __forceinline__ void load(u32 to, const TensorMap* m, u32 bar, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
               "l"(m), "r"(bar), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void store(const TensorMap* m, u32 from, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(m), "r"(from), "r"(x), "r"(y), "r"(z)
               : "memory");
}
__device__ __forceinline__ u32 pack(float a, float b) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a)); return r; }
__device__ __forceinline__ float exp2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }

// Grid (tiles of 128 query rows, query heads). Maps are {dimension, token, head}; span >= 1, sink >= 0.
extern "C" __global__ void __launch_bounds__(128 * (kGroups + 1), 1)
attention(const __grid_constant__ TensorMap tq, const __grid_constant__ TensorMap tk, const __grid_constant__ TensorMap tv,
          const __grid_constant__ TensorMap to, float scale, int tokens, int span, int sink, int heads_per_kv) {
  extern __shared__ __align__(1024) unsigned char smem[];
  __shared__ __align__(8) u64 bars[1 + 4 * kStages];
  const u32 Q = shared(smem), K = Q + kGroups * 64 * kD * 2, V = K + kStages * kTile;
  const u32 q_full = shared(bars), k_full = q_full + 8, k_empty = k_full + 8 * kStages, v_full = k_empty + 8 * kStages,
            v_empty = v_full + 8 * kStages;
  const int group = threadIdx.x >> 7, thread = threadIdx.x & 127, head = blockIdx.y, row0 = blockIdx.x * 64 * kGroups;

  // Tiles that a row of this CTA sees: those of the sink, then those of the window.
  const int last = min((row0 + 64 * kGroups - 1), tokens - 1) / kN, first = max(row0 - span + 1, 0) / kN;
  const int sinks = min((sink + kN - 1) / kN, first), tiles = sinks + last - first + 1;
  auto tile = [&](int i) { return i < sinks ? i : first + i - sinks; };

  if (threadIdx.x == 0) {
    bar_init(q_full, 1);
    for (int s = 0; s < kStages; s++) {
      bar_init(k_full + 8 * s, 1);
      bar_init(v_full + 8 * s, 1);
      bar_init(k_empty + 8 * s, kGroups);
      bar_init(v_empty + 8 * s, kGroups);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (thread == 0) {
      const int kv = head / heads_per_kv;
      bar_expect(q_full, kGroups * 64 * kD * 2);
      load(Q, &tq, q_full, 0, row0, head);
      load(Q + 64 * kD * 2, &tq, q_full, 0, row0 + 64, head);
#pragma unroll 1
      for (int i = 0; i < tiles; i++) {
        const int s = i % kStages;
        const u32 parity = ((i / kStages) & 1) ^ 1;
        bar_wait(k_empty + 8 * s, parity);
        bar_expect(k_full + 8 * s, kTile);
        load(K + s * kTile, &tk, k_full + 8 * s, 0, tile(i) * kN, kv);
        bar_wait(v_empty + 8 * s, parity);
        bar_expect(v_full + 8 * s, kTile);
        load(V + s * kTile, &tv, v_full + 8 * s, 0, tile(i) * kN, kv);
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    const u32 q = Q + (group - 1) * 64 * kD * 2;
    float o[32], s[32], max0 = -1e30f, max1 = -1e30f, sum0 = 0, sum1 = 0, fix0, fix1;
    u32 p[16];
#pragma unroll
    for (int j = 0; j < 32; j++) o[j] = 0;
    auto issue_qk = [&](int st) {
#pragma unroll
      for (int k = 0; k < kD / 16; k++) qk(s, desc(q + 32 * k), desc(K + st * kTile + 32 * k), k != 0);
    };
    auto issue_pv = [&](int st) {
#pragma unroll
      for (int k = 0; k < kN / 16; k++) pv(o, p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3], desc(V + st * kTile + 2048 * k), 1);
    };
    auto softmax = [&](int block) {
      const int row = row0 + (group - 1) * 64 + (thread >> 5) * 16 + ((thread & 31) >> 2), col = block * kN + 2 * (thread & 3);
      float top0 = max0, top1 = max1;
#pragma unroll
      for (int j = 0; j < 32; j++) {
        const int r = row + (j & 2 ? 8 : 0), c = col + (j >> 2) * 8 + (j & 1);
        const bool seen = c <= r && (c > r - span || c < sink);
        s[j] = seen ? s[j] : -1e30f;
        if (j & 2) top1 = fmaxf(top1, s[j]); else top0 = fmaxf(top0, s[j]);
      }
#pragma unroll
      for (int x = 1; x <= 2; x *= 2) {
        top0 = fmaxf(top0, __shfl_xor_sync(~0u, top0, x));
        top1 = fmaxf(top1, __shfl_xor_sync(~0u, top1, x));
      }
      fix0 = exp2((max0 - top0) * scale), fix1 = exp2((max1 - top1) * scale);
      max0 = top0, max1 = top1, sum0 *= fix0, sum1 *= fix1;
#pragma unroll
      for (int j = 0; j < 32; j++) {
        s[j] = exp2((s[j] - (j & 2 ? max1 : max0)) * scale);
        if (j & 2) sum1 += s[j]; else sum0 += s[j];
      }
    };
    auto to_p = [&] {
#pragma unroll
      for (int j = 0; j < 32; j += 2) p[j / 2] = pack(s[j], s[j + 1]);
    };

    bar_wait(q_full, 0);
    bar_wait(k_full, 0);
    wg_fence();
    issue_qk(0);
    wg_commit();
    wg_wait<0>();
    if (thread == 0) bar_arrive(k_empty);
    softmax(tile(0));
    to_p();
    if (group == 1) asm volatile("bar.arrive 1, 256;" ::: "memory");
#pragma unroll 1
    for (int i = 1; i < tiles; i++) {
      const int st = i % kStages, before = (i - 1) % kStages;
      bar_wait(k_full + 8 * st, (i / kStages) & 1);
      asm volatile("bar.sync %0, 256;" ::"r"(group) : "memory");
      wg_fence();
      issue_qk(st);
      wg_commit();
      bar_wait(v_full + 8 * before, ((i - 1) / kStages) & 1);
      issue_pv(before);
      wg_commit();
      asm volatile("bar.arrive %0, 256;" ::"r"(3 - group) : "memory");
      wg_wait<1>();
      if (thread == 0) bar_arrive(k_empty + 8 * st);
      softmax(tile(i));
      // Never taken: keeps the assembler from hoisting the wait above the softmax.
      if (sum0 + sum1 < -1.f) asm volatile("nanosleep.u32 20;");
      wg_wait<0>();
      if (thread == 0) bar_arrive(v_empty + 8 * before);
      to_p();
#pragma unroll
      for (int j = 0; j < 32; j++) o[j] *= j & 2 ? fix1 : fix0;
    }
    const int st = (tiles - 1) % kStages;
    bar_wait(v_full + 8 * st, ((tiles - 1) / kStages) & 1);
    wg_fence();
    issue_pv(st);
    wg_commit();
    wg_wait<0>();

#pragma unroll
    for (int x = 1; x <= 2; x *= 2) {
      sum0 += __shfl_xor_sync(~0u, sum0, x);
      sum1 += __shfl_xor_sync(~0u, sum1, x);
    }
    const float inv0 = 1.f / sum0, inv1 = 1.f / sum1;
    // The output takes the place of this group's query tile, swizzled as its map says.
#pragma unroll
    for (int j = 0; j < 32; j += 2) {
      const int r = (thread >> 5) * 16 + ((thread & 31) >> 2) + (j & 2 ? 8 : 0), byte = (j >> 2) * 16 + 4 * (thread & 3);
      const float inv = j & 2 ? inv1 : inv0;
      const u32 at = q + r * 128 + (byte ^ (r & 7) << 4);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pack(o[j] * inv, o[j + 1] * inv)) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync %0, 128;" ::"r"(group + 2) : "memory");
    if (thread == 0) {
      store(&to, q, 0, row0 + (group - 1) * 64, head);
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
  }
}
