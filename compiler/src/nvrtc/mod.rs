//! NVRTC: CUDA source to a cubin and its PTX, with no GPU and no CUDA toolkit.
//!
//! A kernel is compiled for a real architecture, so that the cubin and the PTX of one call are the same code; its
//! headers are passed in memory. Registers, spills and shared memory are read from the assembler's report. Spills,
//! stack frames and serialised wgmma are errors unless the kernel declares them ([`Allowance`]).
//!
//! [`Search`] finds the library, `library.rs` holds everything unsafe, `log.rs` reads the report.

mod error;
mod find;
mod library;
mod log;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use moac_runtime::arch::Arch;
use moac_runtime::artifact::Resources;
use serde::{Deserialize, Serialize};

pub use error::{Attempt, CompileError, NvrtcError, Outcome};
pub use find::Search;

use library::{Library, Refused};

/// The options of every compilation but the architecture's. No fast-math: the bounds on errors hold for IEEE division
/// and denormals, and the kernels ask for the approximations that they use by name.
pub const OPTIONS: [&str; 4] = [
    "--std=c++17",
    "--device-as-default-execution-space",
    "--ptxas-options=-v",
    "--ptxas-options=--warn-on-spills",
];

/// Where there is a driver, NVRTC keeps what it made in the driver's cache from this version on, and what comes from
/// there comes without the assembler's report. [`crate::cache`] is the cache.
const CACHING: [u32; 2] = [12, 9];
const UNCACHED: &str = "--no-cache";

/// A kernel to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name of its `extern "C"` function.
    pub symbol: String,
    /// The whole source file.
    pub text: String,
    /// The headers that it includes, directly or indirectly, by the names of the `#include` lines.
    pub headers: Vec<(String, String)>,
    /// The architecture to compile it for.
    pub arch: Arch,
    /// The exceptions it declares, which would otherwise be errors.
    pub allowance: Allowance,
}

/// The memory beyond registers that a kernel declares. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Allowance {
    /// Bytes of stack frame of a thread.
    pub stack_bytes: u32,
    /// Bytes of spilled registers of a thread, stores or loads.
    pub spill_bytes: u32,
    /// Whether its wgmma instructions may be serialised.
    pub serialised: bool,
}

/// A compiled kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The machine code, an ELF file.
    pub cubin: Vec<u8>,
    /// The PTX that it was assembled from.
    pub ptx: String,
    /// The resources of a launch, without dynamic shared memory.
    pub resources: Resources,
    /// The warnings of the compiler and the assembler.
    pub warnings: Vec<String>,
}

/// What NVRTC makes of a kernel, with its report; for a virtual architecture, a cubin of no bytes.
struct Code {
    cubin: Vec<u8>,
    ptx: String,
    log: String,
}

/// An NVRTC that serves.
pub struct Nvrtc {
    library: Library,
    path: PathBuf,
    cuda: [u32; 2],
    build: String,
    archs: Vec<u32>,
}

/// The reason a library cannot be used.
#[derive(Debug)]
enum Failure {
    /// The loader refuses it.
    NotLoaded(String),
    /// It is no NVRTC, or one that does not work.
    Unfit(String),
}

impl Failure {
    fn reason(self) -> String {
        match self {
            Self::NotLoaded(reason) | Self::Unfit(reason) => reason,
        }
    }
}

impl Nvrtc {
    /// The first that serves, of all places that are searched.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self, NvrtcError> {
        Ok(Search::of_this_machine().run()?.0)
    }

    /// Opens the library at `path` and asks what it is.
    fn open(path: &Path) -> Result<Self, Failure> {
        let library = Library::open(path)?;
        let unfit = |Refused { call, message }| Failure::Unfit(library.because(format!("{call}: {message}")));
        let cuda = library.version().map_err(unfit)?;
        let archs = library.archs().map_err(unfit)?;
        // The version function knows no patch level; the PTX of an empty program does.
        let options = [format!("--gpu-architecture={}", Arch::Sm80)];
        let output = library.compile("build.cu", "", &[], &options).map_err(unfit)?;
        let ptx = output.code.map(|(_, ptx)| String::from_utf8_lossy(&ptx).into_owned()).unwrap_or_default();
        let build = ptx
            .lines()
            .filter(|line| line.starts_with("// Cuda compilation tools"))
            .find_map(|line| line.rsplit_once(", V"))
            .map(|(_, build)| build.trim().to_owned())
            .ok_or_else(|| Failure::Unfit("its PTX does not name its build".to_owned()))?;
        Ok(Self { library, path: path.to_owned(), cuda, build, archs })
    }

    /// The library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The CUDA version it belongs to, `[major, minor]`.
    pub fn cuda(&self) -> [u32; 2] {
        self.cuda
    }

    /// Its build, such as `13.0.88`.
    pub fn build(&self) -> &str {
        &self.build
    }

    /// Compiles one kernel. May be called from many threads at once.
    ///
    /// # Errors
    /// If the source is wrong, or the code is not what the kernel declares.
    pub fn compile(&self, source: &Source) -> Result<Compiled, CompileError> {
        let Source { symbol, arch, allowance, .. } = source;
        let (symbol, arch) = (symbol.clone(), *arch);
        let Code { cubin, ptx, log } = self.run(source, arch.name())?;
        let log::Report { resources, serialised, warnings } = match log::read(&log) {
            Ok(report) => report,
            Err(figure) => return Err(CompileError::Report { symbol, arch, figure, log }),
        };
        let Allowance { stack_bytes, spill_bytes, serialised: serialised_allowed } = *allowance;
        let spilled = resources.spill_store_bytes.max(resources.spill_load_bytes);
        for (what, found, declared) in
            [("spilled registers", spilled, spill_bytes), ("stack frame", resources.stack_bytes, stack_bytes)]
        {
            if found > declared {
                return Err(CompileError::LocalMemory { symbol, arch, what, found, declared });
            }
        }
        if !serialised.is_empty() && !serialised_allowed {
            return Err(CompileError::Serialised { symbol, arch, log: serialised.join("\n") });
        }
        Ok(Compiled { cubin, ptx, resources, warnings })
    }

    /// The PTX of one kernel, that of [`compile`](Self::compile) to the byte: for whoever runs no machine code, in about
    /// half the time. What only the assembler could tell is not checked.
    ///
    /// # Errors
    /// If the source is wrong.
    pub fn ptx(&self, source: &Source) -> Result<String, CompileError> {
        // The virtual architecture of the real one, `compute_90a` of `sm_90a`.
        Ok(self.run(source, &source.arch.name().replacen("sm", "compute", 1))?.ptx)
    }

    /// Compiles one kernel for an architecture by its name.
    fn run(&self, source: &Source, architecture: &str) -> Result<Code, CompileError> {
        let Source { symbol, text, headers, arch, .. } = source;
        let (symbol, arch) = (symbol.clone(), *arch);
        let capability = capability(arch);
        if !self.archs.contains(&capability) {
            return Err(CompileError::Arch { arch, version: self.cuda, known: self.archs.clone() });
        }
        let call =
            |Refused { call, message }| CompileError::Call { symbol: symbol.clone(), arch, call, message };
        let headers = headers
            .iter()
            .map(|(name, text)| Ok((CString::new(name.as_str())?, CString::new(text.as_str())?)))
            .collect::<Result<Vec<_>, std::ffi::NulError>>()
            .map_err(|_| {
                call(Refused {
                    call: "nvrtcCreateProgram",
                    message: "a header contains a NUL byte".to_owned(),
                })
            })?;
        let mut options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
        options.push(format!("--gpu-architecture={architecture}"));
        // Not one of `OPTIONS`: it changes nothing in the code.
        if self.cuda >= CACHING {
            options.push(UNCACHED.to_owned());
        }
        let _span = tracing::debug_span!("nvrtc", %symbol, %arch).entered();
        let output = self.library.compile(&format!("{symbol}.cu"), text, &headers, &options).map_err(call)?;
        let log = output.log;
        let Some((cubin, ptx)) = output.code else {
            return Err(CompileError::Source { symbol, arch, log: log.trim_end().to_owned() });
        };
        let ptx = String::from_utf8_lossy(&ptx).into_owned();
        if !ptx.contains(&format!(".entry {symbol}(")) {
            return Err(CompileError::NoKernel { symbol, arch });
        }
        Ok(Code { cubin, ptx, log })
    }
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvrtc").field("path", &self.path).field("build", &self.build).finish_non_exhaustive()
    }
}

/// The compute capability as NVRTC counts it, `10 * major + minor`.
fn capability(arch: Arch) -> u32 {
    arch.name()
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(0, |number, digit| 10 * number + u32::from(digit - b'0'))
}
