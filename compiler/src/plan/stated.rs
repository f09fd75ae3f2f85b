//! A model's shape as far as a file states it, and whether there are kernels for it.

use moac_runtime::plan::{MAX_GROUP, ModelShape};

use super::problem::Problems;

/// Head dimensions that there are kernels for.
pub(super) const HEAD_DIMS: [u32; 2] = [64, 128];
/// The largest head dimension that is read as one, to be refused by name.
pub(super) const MAX_HEAD_DIM: u32 = 65_536;
/// The requirement on a name.
pub(super) const NAME: &str = "a name of 1 to 200 printable characters";

/// A [`ModelShape`] whose every field may be missing or was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Stated {
    pub(super) name: Option<String>,
    pub(super) num_layers: Option<u32>,
    pub(super) num_heads: Option<u32>,
    pub(super) num_kv_heads: Option<u32>,
    pub(super) head_dim: Option<u32>,
    pub(super) rope_theta: Option<f64>,
    pub(super) context: Option<u32>,
    pub(super) softmax_scale: Option<f64>,
}

impl Stated {
    /// Refuses shapes without kernels. `places` are where the number of heads, the head dimension and the scale
    /// are stated.
    pub(super) fn supported(&self, places: [&str; 3], problems: &mut Problems) {
        let [heads_at, head_dim_at, scale_at] = places;
        if let (Some(heads), Some(kv_heads)) = (self.num_heads, self.num_kv_heads) {
            let group = heads / kv_heads;
            if !heads.is_multiple_of(kv_heads) {
                problems.add(heads_at, heads.to_string(), format!("a multiple of the {kv_heads} KV heads"));
            } else if group > MAX_GROUP {
                let found = format!("{heads}, {group} for each KV head");
                problems.add(
                    heads_at,
                    found,
                    format!("at most {MAX_GROUP} for each of the {kv_heads} KV heads"),
                );
            }
        }
        if let Some(head_dim) = self.head_dim.filter(|head_dim| !HEAD_DIMS.contains(head_dim)) {
            problems.add(head_dim_at, head_dim.to_string(), "64 or 128");
        }
        // Kernels hold it as a float, times log2(e).
        let holds = |scale: f64| ((scale * std::f64::consts::LOG2_E) as f32).is_normal();
        if let Some(scale) = self.softmax_scale.filter(|&scale| !holds(scale)) {
            problems.add(scale_at, format!("{scale:?}"), "a number that a float holds");
        }
    }

    /// A file's own shape, what it leaves out filled in from `given`, with which it must agree.
    pub(super) fn agree(mut self, given: &ModelShape, problems: &mut Problems) -> Self {
        let ModelShape { name: model, num_layers, num_heads, num_kv_heads, head_dim, .. } = given;
        let mut same = |field: &str, own: Option<u32>, wanted: u32| {
            if let Some(own) = own.filter(|&own| own != wanted) {
                let expected = format!("{wanted}, as --model {model} has");
                problems.add(format!("$.model.{field}"), own.to_string(), expected);
            }
        };
        same("num_layers", self.num_layers, *num_layers);
        same("num_heads", self.num_heads, *num_heads);
        same("num_kv_heads", self.num_kv_heads, *num_kv_heads);
        same("head_dim", self.head_dim, *head_dim);
        let wanted = given.scale();
        if let Some(scale) = self.softmax_scale.filter(|own| (own / wanted - 1.0).abs() > 1e-6) {
            let expected = format!("{wanted:?}, as --model {model} has");
            problems.add("$.model.softmax_scale", format!("{scale:?}"), expected);
        }
        self.softmax_scale = self.softmax_scale.or(given.softmax_scale);
        self.rope_theta = self.rope_theta.or(given.rope_theta);
        self.context = self.context.or(given.context);
        self
    }

    /// The shape, if everything it needs is there.
    pub(super) fn shape(self) -> Option<ModelShape> {
        Some(ModelShape {
            name: self.name?,
            num_layers: self.num_layers?,
            num_heads: self.num_heads?,
            num_kv_heads: self.num_kv_heads?,
            head_dim: self.head_dim?,
            rope_theta: self.rope_theta,
            context: self.context,
            softmax_scale: self.softmax_scale,
        })
    }
}

impl From<ModelShape> for Stated {
    fn from(shape: ModelShape) -> Self {
        Self {
            name: Some(shape.name),
            num_layers: Some(shape.num_layers),
            num_heads: Some(shape.num_heads),
            num_kv_heads: Some(shape.num_kv_heads),
            head_dim: Some(shape.head_dim),
            rope_theta: shape.rope_theta,
            context: shape.context,
            softmax_scale: shape.softmax_scale,
        }
    }
}
