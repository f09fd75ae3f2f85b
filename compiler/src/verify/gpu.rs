//! A GPU as a device.

use std::collections::BTreeMap;

use moac_runtime::artifact::{Kernel, Role};
use moac_runtime::attention::Launch;
use moac_runtime::glue;
use moac_runtime::gpu::{self, GpuError, Trial, TrialGlue, TrialKernel};

use super::candidate::Candidate;
use super::device::{Device, DeviceError, Fresh, POISON, Seen};
use super::glue::GlueCandidate;

/// Three times the largest difference seen on an H200 with 16384 visible keys, 3.5e-5 (the emulator: 2e-6).
const LSE_SLACK: f64 = 1e-4;

/// A GPU, with the memory that cases use on it.
#[derive(Debug)]
pub struct Gpu {
    trial: Trial,
    kernel: Option<(String, TrialKernel)>,
    glue: Option<(String, TrialGlue)>,
    /// Address and size by label and number.
    labels: BTreeMap<(String, u32), (u64, u64)>,
}

impl Gpu {
    /// A device, without kernel or memory.
    ///
    /// # Errors
    /// The driver's message.
    pub fn new(device: &gpu::Device) -> Result<Self, GpuError> {
        Ok(Self { trial: Trial::new(device)?, kernel: None, glue: None, labels: BTreeMap::new() })
    }

    /// The device's properties.
    pub fn info(&self) -> &gpu::DeviceInfo {
        self.trial.device().info()
    }

    fn failed(&self, address: u64, source: GpuError) -> DeviceError {
        DeviceError::Memory { label: self.label(address), source: source.into() }
    }

    /// The label of the buffer at an address.
    fn label(&self, address: u64) -> String {
        let near = self.labels.iter().filter(|(_, (start, _))| *start <= address);
        near.max_by_key(|(_, (start, _))| *start).map_or_else(String::new, |((label, _), _)| label.clone())
    }
}

impl Device for Gpu {
    fn is_sparse(&self) -> bool {
        false
    }

    fn sms(&self) -> u32 {
        self.info().sms
    }

    fn blank(&self) -> u8 {
        POISON
    }

    fn lse_slack(&self) -> f64 {
        LSE_SLACK
    }

    fn load(&mut self, candidate: &Candidate) -> Result<(), DeviceError> {
        let role = Role::attention(candidate.facts.family, candidate.facts.phase);
        let kernel = Kernel {
            symbol: candidate.symbol.clone(),
            role,
            arch: candidate.arch,
            abi: role.abi(),
            launch: candidate.facts.rule,
            resources: candidate.resources,
        };
        let layer = &candidate.layer;
        let loaded = TrialKernel::load(
            self.trial.device(),
            &kernel,
            &candidate.cubin,
            &layer.geometry,
            layer.head_dim,
        );
        let symbol = candidate.symbol.clone();
        match loaded {
            Ok(loaded) => self.kernel = Some((symbol, loaded)),
            Err(source) => return Err(DeviceError::Kernel { symbol, source: source.into() }),
        }
        Ok(())
    }

    fn load_glue(&mut self, candidate: &GlueCandidate) -> Result<(), DeviceError> {
        let role = Role::Glue(candidate.op);
        let kernel = Kernel {
            symbol: candidate.symbol.clone(),
            role,
            arch: candidate.arch,
            abi: role.abi(),
            launch: candidate.sizes.rule(candidate.op),
            resources: candidate.resources,
        };
        let loaded = TrialGlue::load(self.trial.device(), &kernel, &candidate.cubin, candidate.sizes);
        let symbol = candidate.symbol.clone();
        match loaded {
            Ok(loaded) => self.glue = Some((symbol, loaded)),
            Err(source) => return Err(DeviceError::Kernel { symbol, source: source.into() }),
        }
        Ok(())
    }

    fn alloc(&mut self, label: &str, number: u32, bytes: u64, fresh: Fresh<'_>) -> Result<u64, DeviceError> {
        let of_label =
            |source: GpuError| DeviceError::Memory { label: label.to_owned(), source: source.into() };
        let key = (label.to_owned(), number);
        // Allocating waits for the device, so what is large enough is used again, but not for much less.
        let kept = self.labels.get(&key).filter(|(_, size)| (bytes..=2 * bytes + 4096).contains(size));
        let address = if let Some((address, _)) = kept {
            *address
        } else {
            if let Some((address, _)) = self.labels.remove(&key) {
                self.trial.free(address);
            }
            let address = self.trial.alloc(bytes, label).map_err(of_label)?;
            self.labels.insert(key, (address, bytes));
            address
        };
        match fresh {
            Fresh::Unwritten | Fresh::Poison => self.trial.fill(address, POISON),
            Fresh::Zero => self.trial.fill(address, 0),
            Fresh::Data(data) => self.trial.write(address, data.len(), |to| to.copy_from_slice(data)),
        }
        .map_err(of_label)?;
        Ok(address)
    }

    fn clear(&mut self) {
        self.labels.clear();
        self.trial.clear();
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.make(address, bytes.len() as u64, &mut |to| to.copy_from_slice(bytes))
    }

    fn make(&mut self, address: u64, bytes: u64, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DeviceError> {
        self.trial.write(address, bytes as usize, fill).map_err(|source| self.failed(address, source))
    }

    fn read(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], DeviceError> {
        let label = self.label(address);
        self.trial
            .read(address, bytes as usize)
            .map_err(|source| DeviceError::Memory { label, source: source.into() })
    }

    fn launch(&mut self, launch: &Launch, _ctas: Option<&[(u32, u32, u32)]>) -> Result<Seen, DeviceError> {
        let (symbol, kernel) = self.kernel.as_ref().expect("a kernel is loaded before it is launched");
        self.trial
            .launch(kernel, launch)
            .map_err(|source| DeviceError::Kernel { symbol: symbol.clone(), source: source.into() })?;
        Ok(Seen::default())
    }

    fn launch_glue(&mut self, launch: &glue::Launch) -> Result<Seen, DeviceError> {
        let (symbol, kernel) = self.glue.as_ref().expect("a kernel is loaded before it is launched");
        self.trial
            .launch_glue(kernel, launch)
            .map_err(|source| DeviceError::Kernel { symbol: symbol.clone(), source: source.into() })?;
        Ok(Seen::default())
    }
}
