//! The shared library itself: opening it by path, its functions, and one program from source to cubin.
//!
//! All `unsafe` of the compiler is in this file. The functions are resolved from the very library that the search
//! found, not through `cudarc::nvrtc::sys`: that one opens `libnvrtc.so` by name, whichever the loader finds first,
//! panics where there is none or a symbol is missing, and returns a Rust enum, which a newer NVRTC's result code would
//! make undefined. Handles are never closed: NVRTC leaves threads and exit handlers behind.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr;

use super::Failure;

type Handle = *mut c_void;
type SizeOf = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
type Fill = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;

const SUCCESS: c_int = 0;
const COMPILATION: c_int = 6;

/// An open NVRTC.
pub(super) struct Library {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    arch_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Handle) -> c_int,
    log: (SizeOf, Fill),
    ptx: (SizeOf, Fill),
    cubin: (SizeOf, Fill),
    /// The loader's messages on builtins beside the library that did not load.
    unloaded: Vec<String>,
    _open: ManuallyDrop<(libloading::Library, Vec<libloading::Library>)>,
}

/// A call that NVRTC refused, and what it says about it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) call: &'static str,
    pub(super) message: String,
}

/// The output of one compilation.
pub(super) struct Output {
    /// Cubin and PTX, or nothing where the source does not compile.
    pub(super) code: Option<(Vec<u8>, Vec<u8>)>,
    /// The messages of the compiler and the assembler.
    pub(super) log: String,
}

impl Library {
    /// Opens the library at `path`, which is a file, or a bare name for the loader to find.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let load = |path: &Path| {
            // SAFETY: an NVRTC's initialisers set up the compiler and nothing else. That the file is one is the word
            // of the user or of CUDA's own layout; any library on the loader's path gets the same trust.
            unsafe { libloading::Library::new(path) }.map_err(|error| loaders_words(&error))
        };
        // NVRTC opens its builtins by bare name, which fails outside the loader's path unless they are loaded already.
        // Those of another version may lie in the same folder: if one does not load, the search goes on.
        let (mut open, mut unloaded) = (Vec::new(), Vec::new());
        for builtins in builtins(path) {
            match load(&builtins) {
                Ok(library) => open.push(library),
                Err(words) => unloaded.push(words),
            }
        }
        let library = load(path).map_err(Failure::NotLoaded)?;
        // SAFETY: the names and the types are those of nvrtc.h, unchanged since CUDA 11.2. The library stays open for
        // the rest of the process, so the pointers stay valid.
        unsafe {
            Ok(Self {
                version: symbol(&library, c"nvrtcVersion")?,
                arch_count: symbol(&library, c"nvrtcGetNumSupportedArchs")?,
                archs: symbol(&library, c"nvrtcGetSupportedArchs")?,
                error_string: symbol(&library, c"nvrtcGetErrorString")?,
                create: symbol(&library, c"nvrtcCreateProgram")?,
                compile: symbol(&library, c"nvrtcCompileProgram")?,
                destroy: symbol(&library, c"nvrtcDestroyProgram")?,
                log: (symbol(&library, c"nvrtcGetProgramLogSize")?, symbol(&library, c"nvrtcGetProgramLog")?),
                ptx: (symbol(&library, c"nvrtcGetPTXSize")?, symbol(&library, c"nvrtcGetPTX")?),
                cubin: (symbol(&library, c"nvrtcGetCUBINSize")?, symbol(&library, c"nvrtcGetCUBIN")?),
                unloaded,
                _open: ManuallyDrop::new((library, open)),
            })
        }
    }

    /// The reason why the library does not work, with the loader's message about builtins that it refuses.
    pub(super) fn because(&self, reason: String) -> String {
        self.unloaded.iter().fold(reason, |reason, words| format!("{reason}; {words}"))
    }

    /// The CUDA version it belongs to, `[major, minor]`.
    pub(super) fn version(&self) -> Result<[u32; 2], Refused> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to integers of this frame.
        self.check("nvrtcVersion", unsafe { (self.version)(&raw mut major, &raw mut minor) })?;
        Ok([major, minor].map(|part| u32::try_from(part).unwrap_or(0)))
    }

    /// The compute capabilities it compiles for, as `10 * major + minor`.
    pub(super) fn archs(&self) -> Result<Vec<u32>, Refused> {
        let mut count = 0;
        // SAFETY: the pointer is to an integer of this frame.
        self.check("nvrtcGetNumSupportedArchs", unsafe { (self.arch_count)(&raw mut count) })?;
        let mut archs = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the buffer holds as many integers as the call before said.
        self.check("nvrtcGetSupportedArchs", unsafe { (self.archs)(archs.as_mut_ptr()) })?;
        Ok(archs.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect())
    }

    /// Compiles `text`, named `name` in messages, with `headers` as (name, text) pairs in memory.
    pub(super) fn compile(
        &self,
        name: &str,
        text: &str,
        headers: &[(CString, CString)],
        options: &[String],
    ) -> Result<Output, Refused> {
        let text_with_end = c_string("nvrtcCreateProgram", text)?;
        let name = c_string("nvrtcCreateProgram", name)?;
        let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let mut program = Program { library: self, handle: ptr::null_mut() };
        // SAFETY: every pointer is to a string with its NUL that lives until the program is destroyed, at the end of
        // this function; both arrays have `headers.len()` entries.
        let created = unsafe {
            (self.create)(
                &raw mut program.handle,
                text_with_end.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", created)?;
        let options = options
            .iter()
            .map(|option| c_string("nvrtcCompileProgram", option))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program was created and not destroyed; the array has as many strings as it says.
        let compiled = unsafe { (self.compile)(program.handle, pointers.len() as c_int, pointers.as_ptr()) };
        let log = program.text("nvrtcGetProgramLog", self.log)?;
        let log = String::from_utf8_lossy(&log).into_owned();
        if compiled == COMPILATION {
            return Ok(Output { code: None, log });
        }
        self.check("nvrtcCompileProgram", compiled).map_err(|refused| Refused {
            message: format!("{}: {}", refused.message, log.trim()),
            ..refused
        })?;
        let cubin = program.bytes("nvrtcGetCUBIN", self.cubin)?;
        let ptx = program.text("nvrtcGetPTX", self.ptx)?;
        Ok(Output { code: Some((cubin, ptx)), log })
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<(), Refused> {
        if result == SUCCESS {
            return Ok(());
        }
        // SAFETY: NVRTC answers any code with a static string.
        let message = unsafe { CStr::from_ptr((self.error_string)(result)) };
        Err(Refused { call, message: message.to_string_lossy().into_owned() })
    }
}

/// A program of NVRTC, destroyed with this value.
struct Program<'a> {
    library: &'a Library,
    handle: Handle,
}

impl Program<'_> {
    fn bytes(&self, call: &'static str, (size_of, fill): (SizeOf, Fill)) -> Result<Vec<u8>, Refused> {
        let mut size = 0;
        // SAFETY: the program lives; the pointer is to a size of this frame.
        self.library.check(call, unsafe { size_of(self.handle, &raw mut size) })?;
        let mut bytes = vec![0; size];
        // SAFETY: the buffer has the size that NVRTC asked for.
        self.library.check(call, unsafe { fill(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }

    /// As `bytes`, without the NUL that ends NVRTC's texts.
    fn text(&self, call: &'static str, functions: (SizeOf, Fill)) -> Result<Vec<u8>, Refused> {
        let mut bytes = self.bytes(call, functions)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by this library and destroyed nowhere else.
            unsafe { (self.library.destroy)(&raw mut self.handle) };
        }
    }
}

/// # Safety
/// `F` is the type of the function pointer that `name` stands for.
unsafe fn symbol<F: Copy>(library: &libloading::Library, name: &CStr) -> Result<F, Failure> {
    // SAFETY: the caller's promise.
    let symbol = unsafe { library.get::<F>(name.to_bytes_with_nul()) };
    symbol
        .map(|symbol| *symbol)
        .map_err(|_| Failure::Unfit(format!("it has no function `{}`", name.to_string_lossy())))
}

fn c_string(call: &'static str, text: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| Refused { call, message: "a text contains a NUL byte".to_owned() })
}

/// The loader's message, which the error's own text leaves out.
fn loaders_words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The builtins of a library that was named by a path: those beside the file that links lead to, then those beside the
/// link.
fn builtins(library: &Path) -> Vec<PathBuf> {
    let target = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let mut found: Vec<PathBuf> = Vec::new();
    for path in [target.as_path(), library] {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let Some(entries) = folder.and_then(|folder| folder.read_dir().ok()) else { continue };
        let mut here: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("libnvrtc-builtins.so") && !name.contains(".alt.")
            })
            .collect();
        here.sort();
        here.retain(|path| !found.contains(path));
        found.append(&mut here);
    }
    found
}
