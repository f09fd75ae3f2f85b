//! The releases published by strong stores, for strong loads to observe.

use std::collections::BTreeMap;

use crate::hb::Published;

/// The releases, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locations(BTreeMap<u64, Vec<Published>>);

impl Locations {
    /// The releases observed by a strong load of `address`.
    pub(crate) fn at(&self, address: u64) -> &[Published] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }

    /// A strong store that releases `what`; one that is not a read-modify-write ends the release sequences before it.
    pub(crate) fn publish(&mut self, address: u64, what: Option<Published>, rmw: bool) {
        if what.is_none() && (rmw || !self.0.contains_key(&address)) {
            return;
        }
        let list = self.0.entry(address).or_default();
        if !rmw {
            list.clear();
        }
        if let Some(p) = what {
            match list.iter_mut().find(|o| o.scope == p.scope && o.cta == p.cta) {
                Some(o) => o.know.join(&p.know),
                None => list.push(p),
            }
        }
    }
}
