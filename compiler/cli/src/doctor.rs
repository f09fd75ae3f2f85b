//! Searches a machine for everything moac uses (the driver and its devices, NVRTC, the caches), and advises how to
//! install what is missing.

use std::fmt;
use std::path::PathBuf;

use moac_compiler::cache::Cache;
use moac_compiler::hint::Hint;
use moac_compiler::nvrtc::{Attempt, NvrtcError, Search};
use moac_compiler::{env, fetch};
use moac_runtime::gpu::{Device, DeviceInfo};
use serde::Serialize;

/// Everything that was looked for.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The version of moac.
    pub moac: &'static str,
    /// The driver and its devices.
    pub driver: Driver,
    /// The compiler.
    pub nvrtc: NvrtcFindings,
    /// The caches on disk.
    pub caches: Caches,
    /// Advice, one line each.
    pub advice: Vec<String>,
}

/// The driver and its devices.
#[derive(Debug, Serialize)]
pub struct Driver {
    /// The devices; none where there is no driver.
    pub devices: Vec<DeviceInfo>,
    /// The reason the driver could not be used.
    pub missing: Option<String>,
}

/// The compiler, and where it was looked for.
#[derive(Debug, Serialize)]
pub struct NvrtcFindings {
    /// The library in use.
    pub path: Option<PathBuf>,
    /// Its build.
    pub build: Option<String>,
    /// Whether it is the build that the ledger of proven kernels is made with.
    pub pinned: bool,
    /// One line for each place, in order, up to the one that served.
    pub searched: Vec<String>,
}

/// The caches on disk.
#[derive(Debug, Serialize)]
pub struct Caches {
    /// The folder of compiled kernels.
    pub kernels: Option<PathBuf>,
    /// How many there are.
    pub entries: usize,
    /// Their size.
    pub bytes: u64,
    /// The folder of the fetched NVRTC, if it is there.
    pub fetched: Option<PathBuf>,
    /// The fetched model, if it is there.
    pub model: Option<PathBuf>,
}

impl Findings {
    /// Searches this machine.
    pub fn of_this_machine() -> Self {
        let mut advice = Vec::new();
        let driver = Driver::of_this_machine();
        let nvrtc = NvrtcFindings::of_this_machine(&mut advice);
        if env::cache_folder().is_none() {
            advice.push(
                "set MOAC_CACHE_DIR: without a cache folder, every kernel is compiled again each time"
                    .to_owned(),
            );
        }
        Self { moac: env!("CARGO_PKG_VERSION"), driver, nvrtc, caches: Caches::of_this_machine(), advice }
    }

    /// Whether plans can be compiled here.
    pub fn can_compile(&self) -> bool {
        self.nvrtc.path.is_some()
    }
}

impl Driver {
    fn of_this_machine() -> Self {
        match Device::all() {
            Ok(devices) => Self { devices, missing: None },
            Err(error) => Self { devices: Vec::new(), missing: Some(error.to_string()) },
        }
    }
}

impl NvrtcFindings {
    fn of_this_machine(advice: &mut Vec<String>) -> Self {
        let lines = |attempts: &[Attempt]| attempts.iter().map(ToString::to_string).collect();
        match Search::of_this_machine().run() {
            Ok((nvrtc, searched)) => {
                let pinned = nvrtc.build() == fetch::NVRTC.version;
                if !pinned {
                    let (build, version) = (nvrtc.build(), fetch::NVRTC.version);
                    advice.push(format!(
                        "NVRTC {build} works; kernels are proven with {version}, which `moac doctor --fetch` downloads"
                    ));
                }
                let path = Some(nvrtc.path().to_owned());
                Self { path, build: Some(nvrtc.build().to_owned()), pinned, searched: lines(&searched) }
            }
            Err(error) => {
                advice.extend(error.hints());
                let searched = match &error {
                    NvrtcError::NotFound { searched } => lines(searched),
                    _ => vec![error.to_string()],
                };
                Self { path: None, build: None, pinned: false, searched }
            }
        }
    }
}

impl Caches {
    fn of_this_machine() -> Self {
        let kernels = Cache::of_this_machine().path().map(ToOwned::to_owned);
        let (mut entries, mut bytes) = (0, 0);
        let children = |folder: PathBuf| {
            folder.read_dir().into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()))
        };
        for entry in kernels.iter().cloned().flat_map(children).flat_map(children) {
            entries += 1;
            bytes += children(entry).filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>();
        }
        let fetched = fetch::NVRTC.folder().filter(|folder| folder.is_dir());
        let model = fetch::model_path().filter(|path| path.is_file());
        Self { kernels, entries, bytes, fetched, model }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moac, driver, nvrtc, caches, advice } = self;
        write!(f, "moac     {moac}")?;
        match &driver.missing {
            Some(why) => write!(f, "\nGPU      {why}")?,
            None if driver.devices.is_empty() => write!(f, "\nGPU      a driver, but no device")?,
            None => {}
        }
        for DeviceInfo { ordinal, name, capability: [major, minor], memory_bytes, driver, .. } in
            &driver.devices
        {
            let gibibytes = *memory_bytes as f64 / f64::from(1 << 30);
            let [cuda, cuda_minor] = driver;
            write!(f, "\nGPU {ordinal}    {name}, compute capability {major}.{minor}, {gibibytes:.1} GiB, ")?;
            write!(f, "driver for CUDA {cuda}.{cuda_minor}")?;
        }
        match (&nvrtc.path, &nvrtc.build) {
            (Some(path), Some(build)) => write!(f, "\nNVRTC    {build}, {}", path.display())?,
            _ => write!(f, "\nNVRTC    not found: plans cannot be compiled")?,
        }
        for line in &nvrtc.searched {
            write!(f, "\n         searched {line}")?;
        }
        match &caches.kernels {
            Some(folder) => {
                let mebibytes = caches.bytes as f64 / f64::from(1 << 20);
                write!(f, "\ncache    {}: {} kernels, {mebibytes:.1} MiB", folder.display(), caches.entries)?;
            }
            None => write!(f, "\ncache    none")?,
        }
        if let Some(folder) = &caches.fetched {
            write!(f, "\nfetched  {}", folder.display())?;
        }
        if let Some(path) = &caches.model {
            write!(f, "\nmodel    {}", path.display())?;
        }
        advice.iter().try_for_each(|line| write!(f, "\nadvice   {line}"))
    }
}
