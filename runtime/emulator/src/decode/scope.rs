//! Names: what a scope binds, and the special registers.

use std::collections::BTreeMap;

use crate::ir::{Pred, Reg, Special};

/// The meaning of a name.
#[derive(Clone, Debug)]
pub(crate) enum Binding {
    /// A register and its width.
    Reg(Reg, u32),
    Pred(Pred),
    Label(u32),
    /// The list behind `.branchtargets`.
    Targets(Vec<String>),
    /// Offset in the kernel's parameter block.
    Param(u64),
    /// Offset in local memory of a parameter of an inlined call.
    CallParam(u64),
    /// Address in shared memory.
    Shared(u64),
    /// Address in local memory.
    Local(u64),
}

/// The names of one block, and the registers to give back at its end.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    names: BTreeMap<String, Binding>,
    pub(crate) regs: Vec<Reg>,
    pub(crate) preds: Vec<Pred>,
}

impl Scope {
    pub(crate) fn bind(&mut self, name: String, b: Binding) {
        self.names.insert(name, b);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Binding> {
        self.names.get(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

/// A special register that is constant for a thread.
pub(crate) fn special(name: &str) -> Option<Special> {
    let axis = |s: &str| match s {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((base, a)) = name.split_once('.') {
        let a = axis(a)?;
        return Some(match base {
            "tid" => Special::Tid(a),
            "ntid" => Special::Ntid(a),
            "ctaid" => Special::Ctaid(a),
            "nctaid" => Special::Nctaid(a),
            "cluster_ctaid" => Special::ClusterCtaId(a),
            "cluster_nctaid" => Special::ClusterNCtaId(a),
            "clusterid" => Special::ClusterId(a),
            "nclusterid" => Special::NClusterId(a),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NWarpId,
        "smid" => Special::SmId,
        "nsmid" => Special::NSmId,
        "gridid" => Special::GridId,
        "lanemask_eq" => Special::LaneMaskEq,
        "lanemask_le" => Special::LaneMaskLe,
        "lanemask_lt" => Special::LaneMaskLt,
        "lanemask_ge" => Special::LaneMaskGe,
        "lanemask_gt" => Special::LaneMaskGt,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        "cluster_ctarank" => Special::ClusterCtaRank,
        "cluster_nctarank" => Special::ClusterNCtaRank,
        _ => return None,
    })
}
