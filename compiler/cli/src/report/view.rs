//! A plan as it would be compiled, or an artifact as it was: one shape for both.

use moac_compiler::lower::{Kernel, Lowered, Target};
use moac_compiler::render::{Error, Renderer};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Manifest, Resources, Role};
use moac_runtime::geometry::Geometry;
use moac_runtime::glue::EngineShape;
use moac_runtime::launch::LaunchRule;
use moac_runtime::plan::Plan;

/// The input of a report.
#[derive(Clone, Debug)]
pub struct View {
    /// The plan, whole.
    pub plan: Plan,
    /// The architecture that it is compiled for.
    pub target: Target,
    /// Spans and rings over the target's KV heads and lengths.
    pub geometry: Geometry,
    /// Every kernel.
    pub kernels: Vec<KernelView>,
    /// The shape that the engine's kernels are compiled for, where there are any.
    pub engine: Option<EngineShape>,
    /// The digest of an artifact.
    pub digest: Option<String>,
}

/// One kernel. Resources and code size are known for artifacts only.
#[derive(Clone, Debug)]
pub struct KernelView {
    /// The function.
    pub symbol: String,
    /// The phase of attention or the operation of the engine that it computes.
    pub role: Role,
    /// The architecture that it is compiled for.
    pub arch: Arch,
    /// The layers that use it, ascending; none where it is the engine's.
    pub layers: Vec<u32>,
    /// How it is launched.
    pub launch: LaunchRule,
    /// Registers, spills and static shared memory.
    pub resources: Option<Resources>,
    /// Bytes of machine code.
    pub cubin_bytes: Option<u64>,
    /// The generated file.
    pub source: String,
}

impl View {
    /// A plan and its lowering.
    pub fn of_plan(plan: &Plan, lowered: Lowered) -> Result<Self, Error> {
        let renderer = Renderer::new()?;
        let sources: Vec<String> =
            lowered.specs.iter().map(|spec| renderer.render(spec)).collect::<Result<_, _>>()?;
        let view = |kernel: &Kernel, role, layers, launch, source: &String| KernelView {
            symbol: kernel.symbol.clone(),
            role,
            arch: kernel.arch,
            layers,
            launch,
            resources: None,
            cubin_bytes: None,
            source: source.clone(),
        };
        let mut kernels: Vec<KernelView> = Vec::new();
        for kernel in &lowered.kernels {
            let spec = &lowered.specs[kernel.spec];
            let (role, layers) = (Role::attention(spec.family, spec.phase), lowered.layers_of(kernel.spec));
            kernels.push(view(kernel, role, layers, spec.launch, &sources[kernel.spec]));
        }
        if let Some(engine) = &lowered.engine {
            for kernel in &engine.kernels {
                let spec = &engine.specs[kernel.spec];
                let source = renderer.render_glue(spec)?;
                kernels.push(view(kernel, Role::Glue(spec.op), Vec::new(), spec.launch, &source));
            }
        }
        let engine = lowered.engine.map(|engine| engine.shape);
        let Lowered { target, geometry, .. } = lowered;
        Ok(Self { plan: plan.clone(), target, geometry, kernels, engine, digest: None })
    }

    /// An artifact.
    pub fn of_artifact(artifact: &Artifact) -> Self {
        let Manifest { plan, geometry, dtype, archs, kv_heads, layers, kernels, engine, .. } =
            artifact.manifest();
        let users = |id: usize, arch: Arch| {
            let uses = |of: &moac_runtime::artifact::Layer| {
                of.kernels.get(&arch).is_some_and(|of| of.prefill == id || of.decode == id)
            };
            (0u32..).zip(layers).filter(|(_, of)| uses(of)).map(|(layer, _)| layer).collect()
        };
        let kernels = kernels
            .iter()
            .enumerate()
            .map(|(id, kernel)| KernelView {
                symbol: kernel.symbol.clone(),
                role: kernel.role,
                arch: kernel.arch,
                layers: users(id, kernel.arch),
                launch: kernel.launch,
                resources: Some(kernel.resources),
                cubin_bytes: Some(artifact.cubin(kernel).len() as u64),
                source: artifact.source(kernel).unwrap_or_default().to_owned(),
            })
            .collect();
        let target = Target {
            kv_heads: kv_heads.clone(),
            lengths: geometry.lengths.clone(),
            dtype: *dtype,
            archs: archs.clone(),
        };
        let engine = engine.as_ref().map(|engine| engine.shape.clone());
        let digest = Some(artifact.digest().to_string());
        Self { plan: plan.clone(), target, geometry: geometry.clone(), kernels, engine, digest }
    }

    /// The first query head of the target's range, in the model's numbering.
    pub fn first_head(&self) -> u32 {
        self.target.kv_heads.start * self.plan.model.group_size()
    }
}
