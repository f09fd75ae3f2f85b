//! The CTAs that are resident together, and all that they share.

use super::cta::Cta;
use super::events::Pending;
use super::findings::Findings;
use super::locations::Locations;
use crate::memory::view::View;

/// The CTAs that run now, their view of global memory, and what happens in it.
pub(crate) struct Residents<'m> {
    pub(crate) view: View<'m>,
    pub(crate) ctas: Vec<Cta>,
    /// The releases at global addresses.
    pub(crate) locations: Locations,
    pub(crate) findings: Findings,
    /// Asynchronous operations under way.
    pub(crate) pending: Pending,
}
