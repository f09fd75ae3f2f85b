//! The immutable state shared by all CTAs of a launch: the kernel, the launch, and the positions of CTAs, clusters and threads in the grid.

use std::collections::BTreeMap;

use super::agents::issuing_warp;
use crate::hb::{LaneClock, is_agent};
use crate::ir::{Code, Special};
use crate::kernel::Kernel;
use crate::launch::Launch;
use crate::module::Module;
use crate::report::Dim3;

/// The immutable state shared by all CTAs of a launch.
pub(crate) struct Env<'a> {
    pub(crate) module: &'a Module,
    pub(crate) kernel: &'a Kernel,
    pub(crate) code: &'a Code,
    pub(crate) launch: &'a Launch,
    /// Addresses of the module's variables.
    pub(super) variables: Vec<u64>,
    /// Threads and warps of a CTA.
    pub(crate) threads: u32,
    pub(crate) warps: u32,
}

impl<'a> Env<'a> {
    pub(crate) fn new(
        module: &'a Module,
        kernel: &'a Kernel,
        launch: &'a Launch,
        variables: Vec<u64>,
    ) -> Self {
        let threads = launch.block.0 * launch.block.1 * launch.block.2;
        Self { module, kernel, code: &kernel.code, launch, variables, threads, warps: threads.div_ceil(32) }
    }

    /// Index of a CTA from its linear one.
    pub(crate) fn cta(&self, linear: u32) -> Dim3 {
        let (x, y, _) = self.launch.grid;
        (linear % x, linear / x % y, linear / x / y)
    }

    /// CTAs of a cluster, by axis.
    pub(crate) fn cluster_shape(&self) -> Dim3 {
        self.launch.cluster.or(self.kernel.cluster.map(|[x, y, z]| (x, y, z))).unwrap_or((1, 1, 1))
    }

    /// Linear index of a CTA's cluster.
    pub(crate) fn cluster(&self, cta: u32) -> u32 {
        let (c, s, g) = (self.cta(cta), self.cluster_shape(), self.launch.grid);
        c.0 / s.0 + g.0 / s.0 * (c.1 / s.1 + g.1 / s.1 * (c.2 / s.2))
    }

    /// CTAs of a cluster.
    pub(crate) fn cluster_size(&self) -> u32 {
        let s = self.cluster_shape();
        s.0 * s.1 * s.2
    }

    /// Linear index of the CTA at a rank of another's cluster, if the cluster has that rank.
    pub(crate) fn cluster_member(&self, cta: u32, rank: u32) -> Option<u32> {
        let (c, s, g) = (self.cta(cta), self.cluster_shape(), self.launch.grid);
        let r = (rank % s.0, rank / s.0 % s.1, rank / s.0 / s.1);
        let at = (c.0 / s.0 * s.0 + r.0, c.1 / s.1 * s.1 + r.1, c.2 / s.2 * s.2 + r.2);
        (r.2 < s.2).then_some(at.0 + g.0 * (at.1 + g.1 * at.2))
    }

    /// Rank of a CTA in its cluster.
    pub(crate) fn cluster_rank(&self, cta: u32) -> u32 {
        let (c, s) = (self.cta(cta), self.cluster_shape());
        c.0 % s.0 + s.0 * (c.1 % s.1 + s.1 * (c.2 % s.2))
    }

    /// The clusters that CTAs are in, each with all its CTAs: those of a cluster only run together.
    pub(crate) fn clusters(&self, ctas: &[u32]) -> Vec<Vec<u32>> {
        let mut out = BTreeMap::new();
        for &cta in ctas {
            out.entry(self.cluster(cta)).or_insert_with(|| {
                (0..self.cluster_size()).filter_map(|r| self.cluster_member(cta, r)).collect()
            });
        }
        out.into_values().collect()
    }

    /// Bytes of shared memory of a CTA.
    pub(super) fn shared(&self) -> u32 {
        if self.launch.dynamic_shared == 0 {
            self.kernel.static_shared
        } else {
            self.kernel.dynamic_shared_offset + self.launch.dynamic_shared
        }
    }

    pub(super) fn special(&self, s: Special, cta: u32, warp: u32, lane: u32) -> u32 {
        let axis = |v: Dim3, a: u8| [v.0, v.1, v.2][usize::from(a)];
        let b = self.launch.block;
        let t = warp * 32 + lane;
        match s {
            Special::Tid(a) => axis((t % b.0, t / b.0 % b.1, t / b.0 / b.1), a),
            Special::Ntid(a) => axis(b, a),
            Special::Ctaid(a) => axis(self.cta(cta), a),
            Special::Nctaid(a) => axis(self.launch.grid, a),
            Special::ClusterId(a) => axis(self.cta(cta), a) / axis(self.cluster_shape(), a),
            Special::NClusterId(a) => axis(self.launch.grid, a) / axis(self.cluster_shape(), a),
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NWarpId => self.warps,
            Special::SmId => cta % self.launch.sm_count.max(1),
            Special::NSmId => self.launch.sm_count,
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => (1 << lane) - 1,
            Special::LaneMaskLe => (1 << lane) | ((1 << lane) - 1),
            Special::LaneMaskGe => !((1 << lane) - 1),
            Special::LaneMaskGt => !((1 << lane) | ((1 << lane) - 1)),
            Special::DynamicShared => self.launch.dynamic_shared,
            Special::TotalShared => self.shared(),
            Special::ClusterNCtaId(a) => axis(self.cluster_shape(), a),
            Special::ClusterNCtaRank => self.cluster_size(),
            Special::ClusterCtaId(a) => axis(self.cta(cta), a) % axis(self.cluster_shape(), a),
            Special::ClusterCtaRank => self.cluster_rank(cta),
            Special::GridId => 0,
        }
    }

    /// CTA and thread index of the first lane of a stamp.
    pub(crate) fn thread(&self, at: LaneClock) -> (u32, u32) {
        if let Some((cta, index)) = is_agent(at.warp) {
            return (
                cta,
                issuing_warp(index) * 32 + if at.mask == u32::MAX { 0 } else { at.mask.trailing_zeros() },
            );
        }
        (at.warp / self.warps, at.warp % self.warps * 32 + at.mask.trailing_zeros().min(31))
    }
}
