//! Check 5: the recorded geometry is the one that follows from the recorded plan.
//!
//! The kernels hold the same numbers as literals. A file whose numbers disagree with this crate's arithmetic would put
//! one request's tokens where another's are expected, so it does not open.

use std::fmt::Debug;

use super::error::OpenError;
use super::manifest::Manifest;
use super::message::difference;
use crate::geometry::{BucketGeometry, Geometry, LayerGeometry};

/// Compares `manifest.geometry` with the plan's. The plan, the range and the lengths are valid.
pub(super) fn compare(manifest: &Manifest) -> Result<(), OpenError> {
    let Geometry { lengths, layers, layer_base, slab_bytes } = &manifest.geometry;
    let expected = Geometry::new(&manifest.plan, manifest.kv_heads.clone(), lengths, manifest.dtype);
    count("geometry.layers", layers, &expected.layers)?;
    for (index, (layer, expected)) in layers.iter().zip(&expected.layers).enumerate() {
        compare_layer(&format!("geometry.layers[{index}]"), layer, expected)?;
    }
    count("geometry.layer_base", layer_base, &expected.layer_base)?;
    for (index, (base, expected)) in layer_base.iter().zip(&expected.layer_base).enumerate() {
        same(&format!("geometry.layer_base[{index}]"), base, expected)?;
    }
    same("geometry.slab_bytes", slab_bytes, &expected.slab_bytes)
}

fn compare_layer(at: &str, found: &LayerGeometry, expected: &LayerGeometry) -> Result<(), OpenError> {
    let LayerGeometry { rules, group_of_head, buckets } = found;
    same(&format!("{at}.rules"), rules, &expected.rules)?;
    same(&format!("{at}.group_of_head"), group_of_head, &expected.group_of_head)?;
    count(&format!("{at}.buckets"), buckets, &expected.buckets)?;
    for (index, (found, expected)) in buckets.iter().zip(&expected.buckets).enumerate() {
        let at = format!("{at}.buckets[{index}]");
        let BucketGeometry { length, span, kv_span, ring, tile_prefix } = found;
        if *length != expected.length {
            let (found, expected) = (length.to_string(), expected.length.to_string());
            return Err(OpenError::Geometry { at: format!("{at}.length"), found, expected });
        }
        same(&format!("{at}.span"), span, &expected.span)?;
        same(&format!("{at}.kv_span"), kv_span, &expected.kv_span)?;
        same(&format!("{at}.ring"), ring, &expected.ring)?;
        same(&format!("{at}.tile_prefix"), tile_prefix, &expected.tile_prefix)?;
    }
    Ok(())
}

fn same<T: PartialEq + Debug>(at: &str, found: &[T], expected: &[T]) -> Result<(), OpenError> {
    let Some((index, found, expected)) = difference(found, expected) else { return Ok(()) };
    let at = index.map_or_else(|| at.to_owned(), |index| format!("{at}[{index}]"));
    Err(OpenError::Geometry { at, found, expected })
}

fn count<T>(at: &str, found: &[T], expected: &[T]) -> Result<(), OpenError> {
    if found.len() == expected.len() {
        return Ok(());
    }
    let entries = |list: &[T]| format!("{} entries", list.len());
    Err(OpenError::Geometry { at: at.to_owned(), found: entries(found), expected: entries(expected) })
}
