// Small kernels around single instructions of Hopper. instructions.ptx beside this file is what NVRTC made of it for sm_90a.

typedef unsigned long long u64;
typedef unsigned u32;
typedef unsigned short u16;
struct alignas(64) TensorMap { u64 opaque[16]; };
extern __shared__ __align__(1024) unsigned char smem[];

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void init(u32 b, u32 n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(b), "r"(n) : "memory");
}
__device__ __forceinline__ void expect(u32 b, u32 n) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(n) : "memory");
}
__device__ __forceinline__ void wait(u32 b, u32 parity) {
  asm volatile("{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT_%=;\n}" ::"r"(b), "r"(parity)
               : "memory");
}
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void commit_and_wait() {
  asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
}

// out = in + 1, by a bulk copy in, an increment in shared memory, and a bulk copy out.
extern "C" __global__ void __launch_bounds__(64) bulk(const u32* in, u32* out, u32 bytes) {
  __shared__ __align__(8) u64 bar;
  u32 data = shared(smem), b = shared(&bar);
  if (threadIdx.x == 0) {
    init(b, 1);
    expect(b, bytes);
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(data),
                 "l"(in), "r"(bytes), "r"(b), "l"(policy) : "memory");
  }
  __syncthreads();
  wait(b, 0);
  for (u32 i = threadIdx.x; i < bytes / 4; i += 64) ((u32*)smem)[i]++;
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(out), "r"(data), "r"(bytes) : "memory");
    commit_and_wait();
  }
}

// A box into shared memory, a dump of that as it lies, and the box out through another map.
#define TENSOR(rank, coords)                                                                                                                \
  extern "C" __global__ void __launch_bounds__(32) tensor##rank(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, \
                                                                 u32* dump, u32 bytes, int c0, int c1, int c2, int c3, int c4) {              \
    __shared__ __align__(8) u64 bar;                                                                                                        \
    u32 data = shared(smem), b = shared(&bar);                                                                                              \
    if (threadIdx.x == 0) {                                                                                                                 \
      asm volatile("prefetch.tensormap [%0];" ::"l"(&from) : "memory");                                                                     \
      init(b, 1);                                                                                                                           \
      expect(b, bytes);                                                                                                                     \
      asm volatile("cp.async.bulk.tensor." #rank "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, " coords "], [%2];" \
                   ::"r"(data), "l"(&from), "r"(b), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4) : "memory");                                \
    }                                                                                                                                       \
    __syncthreads();                                                                                                                        \
    wait(b, 0);                                                                                                                             \
    for (u32 i = threadIdx.x; i < bytes / 4; i += 32) dump[i] = ((u32*)smem)[i];                                                            \
    if (threadIdx.x == 0) {                                                                                                                 \
      asm volatile("cp.async.bulk.tensor." #rank "d.global.shared::cta.tile.bulk_group [%1, " coords "], [%0];" ::"r"(data), "l"(&to),     \
                   "r"(b), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4) : "memory");                                                         \
      commit_and_wait();                                                                                                                    \
    }                                                                                                                                       \
  }
TENSOR(1, "{%3}")
TENSOR(2, "{%3, %4}")
TENSOR(3, "{%3, %4, %5}")
TENSOR(4, "{%3, %4, %5, %6}")
TENSOR(5, "{%3, %4, %5, %6, %7}")

// Every CTA adds 16 numbers of each type to the same places: f32, then bf16, then u32 through a tensor map.
extern "C" __global__ void __launch_bounds__(32) reduce(const __grid_constant__ TensorMap map, float* f, u16* h) {
  float* data = (float*)smem;
  if (threadIdx.x < 16) {
    data[threadIdx.x] = 1.5f * threadIdx.x + blockIdx.x;
    ((u16*)(data + 16))[threadIdx.x] = 0x3fc0;  // 1.5
    ((u32*)(data + 32))[threadIdx.x] = threadIdx.x;
  }
  fence_async();
  __syncwarp();
  if (threadIdx.x == 0) {
    u32 s = shared(smem);
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], 64;" ::"l"(f), "r"(s) : "memory");
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.bf16 [%0], [%1], 32;" ::"l"(h), "r"(s + 64) : "memory");
    asm volatile("cp.reduce.async.bulk.tensor.1d.global.shared::cta.add.tile.bulk_group [%0, {%2}], [%1];" ::"l"(&map), "r"(s + 128), "r"(0)
                 : "memory");
    commit_and_wait();
  }
}

// Rounds of writing a number and reading a neighbour's, with states, counts, drops and an arrival that must not complete.
extern "C" __global__ void __launch_bounds__(128) phases(u32* out) {
  __shared__ u32 data[2][128];
  __shared__ __align__(8) u64 bar;
  u32 t = threadIdx.x, b = shared(&bar), sum = 0;
  if (t == 0) init(b, 2 * 128);
  __syncthreads();
  for (u32 round = 0; round < 6; round++) {
    data[round & 1][t] = 100 * round + t;
    u64 state;
    asm volatile("mbarrier.arrive.noComplete.shared::cta.b64 %0, [%1], 1;" : "=l"(state) : "r"(b) : "memory");
    if (round < 5)
      asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1], 1;" : "=l"(state) : "r"(b) : "memory");
    else
      asm volatile("mbarrier.arrive_drop.shared::cta.b64 %0, [%1], 1;" : "=l"(state) : "r"(b) : "memory");
    u32 pending;
    asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(pending) : "l"(state));
    sum += pending >= 1 && pending <= 255 ? 0 : 1000000;
    asm volatile("{\n.reg .pred p;\nWAIT_%=:\nmbarrier.test_wait.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT_%=;\n}" ::"r"(b), "l"(state)
                 : "memory");
    sum += data[round & 1][(t + 37) % 128];
  }
  // After the drops a phase takes half the arrivals.
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory");
  wait(b, 0);
  __syncthreads();
  if (t == 0) asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(b) : "memory");
  out[t] = sum;
}

// cp.async of each thread, awaited by all through one barrier.
extern "C" __global__ void __launch_bounds__(64) copy_arrive(const uint4* in, u32* out) {
  __shared__ uint4 data[64];
  __shared__ __align__(8) u64 bar;
  u32 t = threadIdx.x, b = shared(&bar);
  if (t == 0) init(b, 64);
  __syncthreads();
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared(data + t)), "l"(in + t) : "memory");
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(b) : "memory");
  wait(b, 0);
  out[t] = data[(t + 40) % 64].y;
}

// Two CTAs: rank 0 multicasts, each sends a word to the other, and tells it through a remote arrival.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(32) cluster(const u32* in, u32* out) {
  __shared__ __align__(16) u32 data[32], mail[4];
  __shared__ __align__(8) u64 bars[3];
  u32 t = threadIdx.x, rank, peer, to, there, remote, b = shared(bars);
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  peer = rank ^ 1;
  if (t == 0) {
    init(b, 1), init(b + 8, 1), init(b + 16, 32);
    expect(b, 128);
    expect(b + 8, 16);
  }
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared(mail)), "r"(peer));
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(b + 8), "r"(peer));
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(b + 16), "r"(peer));
  if (t == 0 && rank == 0)
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 128, [%2], %3;" ::"r"(
                     shared(data)), "l"(in), "r"(b), "h"((u16)3) : "memory");
  if (t == 0)
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %1, %1, %1}, [%2];" ::"r"(to), "r"(7 + rank),
                 "r"(there) : "memory");
  wait(b, 0);
  wait(b + 8, 0);
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(remote) : "memory");
  asm volatile("{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], 0;\n@!p bra WAIT_%=;\n}" ::"r"(b + 16)
               : "memory");
  out[blockIdx.x * 32 + t] = data[31 - t] + 1000 * mail[t & 3];
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// Registers given and taken, an elected lane, and what has no effect in a launch that stands alone.
extern "C" __global__ void __launch_bounds__(256, 1) control(u32* out) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (threadIdx.x < 128)
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
  else
    asm volatile("setmaxnreg.inc.sync.aligned.u32 256;");
  u32 leader, elected;
  asm volatile("{\n.reg .pred p;\nelect.sync %0|p, 0xffffffff;\nselp.u32 %1, 1, 0, p;\n}" : "=r"(leader), "=r"(elected));
  asm volatile("fence.proxy.async;\nfence.proxy.async.global;\nfence.proxy.async.shared::cluster;\nfence.proxy.tensormap::generic.release.gpu;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
  out[threadIdx.x] = leader + 100 * elected;
}
