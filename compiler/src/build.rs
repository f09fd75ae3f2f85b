//! A lowered plan to an artifact: render, compile in parallel through the cache, pack, and open the result as a reader
//! would.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_runtime::artifact::{Artifact, OpenError};
use moac_runtime::plan::Plan;
use rayon::prelude::*;
use thiserror::Error;

use crate::cache::Cache;
use crate::headers;
use crate::hint::Hint;
use crate::lower::Lowered;
use crate::nvrtc::{Allowance, CompileError, Compiled, Nvrtc, Source};
use crate::pack::pack;
use crate::render::{self, Renderer};

/// The stack of a thread that compiles: the compiler recurses through deep syntax. The main thread's is as large.
pub const STACK_BYTES: usize = 8 << 20;

/// Errors of building an artifact.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A kernel could not be rendered.
    #[error(transparent)]
    Render(#[from] render::Error),
    /// A kernel did not compile.
    #[error("{first}{}", others(*more))]
    Compile {
        /// The first of those that failed, in the order of the kernels.
        first: CompileError,
        /// How many others failed before the rest was given up.
        more: usize,
    },
    /// The caller wants to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// No threads to compile on.
    #[error("cannot start the compiler's threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The artifact is larger than its container can describe.
    #[error("cannot pack the artifact: {0}")]
    Pack(#[source] std::io::Error),
    /// A defect of moac: what was packed does not open.
    #[error("the packed artifact does not open: {0}")]
    Check(#[from] OpenError),
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!("\n({more} more kernels failed)") }
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Compile { first, .. } => first.hints(),
            _ => Vec::new(),
        }
    }
}

/// The compiler, and how it is used.
pub struct Builder<'a> {
    /// The compiler.
    pub nvrtc: &'a Nvrtc,
    /// Where compiled kernels are kept.
    pub cache: &'a Cache,
    /// Compilations at once; by default one per core.
    pub jobs: Option<NonZeroUsize>,
    /// Set it to stop before the next kernel.
    pub stop: &'a AtomicBool,
    /// Called after each kernel, from any thread, with whether the cache had it.
    pub progress: &'a (dyn Fn(&Source, bool) + Sync),
}

/// An artifact, and which of its kernels were in the cache.
#[derive(Debug)]
pub struct Built {
    /// The artifact, checked.
    pub artifact: Artifact,
    /// One for each of the manifest's kernels.
    pub cached: Vec<bool>,
    /// The compiler's warnings, by kernel.
    pub warnings: Vec<Vec<String>>,
}

impl Builder<'_> {
    /// Compiles and packs `lowered`, which is `plan` lowered.
    ///
    /// # Errors
    /// If a compiled kernel is not as its spec says.
    pub fn build(&self, plan: &Plan, lowered: &Lowered) -> Result<Built, Error> {
        let sources = sources(lowered)?;
        let (compiled, cached): (Vec<Compiled>, Vec<bool>) = self.compile(&sources)?.into_iter().unzip();
        let bytes = pack(plan, lowered, self.nvrtc, &sources, &compiled).map_err(Error::Pack)?;
        let warnings = compiled.into_iter().map(|compiled| compiled.warnings).collect();
        Ok(Built { artifact: Artifact::from_bytes(bytes)?, cached, warnings })
    }

    /// Compiles `sources` in parallel; also says which were in the cache.
    ///
    /// # Errors
    /// The first kernel that failed. Kernels that had not begun by then are not compiled.
    pub fn compile(&self, sources: &[Source]) -> Result<Vec<(Compiled, bool)>, Error> {
        let threads = self.jobs.map_or(0, NonZeroUsize::get);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build()?;
        let failed = AtomicBool::new(false);
        let one = |source: &Source| {
            if self.stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) {
                return None;
            }
            let result = self.cache.compile(self.nvrtc, source);
            match &result {
                Ok((_, cached)) => (self.progress)(source, *cached),
                Err(_) => failed.store(true, Ordering::Relaxed),
            }
            Some(result)
        };
        // One at a time to each thread: kernels take very different times.
        let results: Vec<_> = pool.install(|| sources.par_iter().with_max_len(1).map(one).collect());
        let mut compiled = Vec::new();
        let mut errors = Vec::new();
        for result in results.into_iter().flatten() {
            match result {
                Ok(kernel) => compiled.push(kernel),
                Err(error) => errors.push(error),
            }
        }
        let more = errors.len().saturating_sub(1);
        match errors.into_iter().next() {
            Some(first) => Err(Error::Compile { first, more }),
            None if compiled.len() < sources.len() => Err(Error::Interrupted),
            None => Ok(compiled),
        }
    }
}

/// The source passed to NVRTC for each of [`Lowered::all_kernels`], in order.
///
/// # Errors
/// If the template fails.
pub fn sources(lowered: &Lowered) -> Result<Vec<Source>, Error> {
    let renderer = Renderer::new()?;
    let attention = lowered.specs.iter().map(|spec| renderer.render(spec)).collect::<Result<Vec<_>, _>>()?;
    let glue = lowered.engine.iter().flat_map(|engine| &engine.specs);
    let glue = glue.map(|spec| renderer.render_glue(spec)).collect::<Result<Vec<_>, _>>()?;
    let source = |kernel: &crate::lower::Kernel, text: &String| {
        let headers = headers::closure(text);
        Source {
            symbol: kernel.symbol.clone(),
            text: text.clone(),
            headers: headers.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect(),
            arch: kernel.arch,
            allowance: Allowance::default(),
        }
    };
    let attention = lowered.kernels.iter().map(|kernel| source(kernel, &attention[kernel.spec]));
    let glue_kernels = lowered.engine.iter().flat_map(|engine| &engine.kernels);
    Ok(attention.chain(glue_kernels.map(|kernel| source(kernel, &glue[kernel.spec]))).collect())
}
