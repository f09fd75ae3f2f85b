//! Small tables that go to the device and come back every step: through pinned memory, in turns, so that the host writes
//! one while the device still reads or writes the others.

use std::collections::VecDeque;

use super::memory::Pinned;
use super::{Device, Event, GpuError, Part, Stream};

/// A table in pinned host memory, and when the device is done with it.
#[derive(Debug)]
struct Place {
    memory: Pinned,
    done: Event,
}

/// Places that are used in turns.
#[derive(Debug)]
struct Turns {
    places: Vec<Place>,
    next: usize,
}

impl Turns {
    fn new(device: &Device, bytes: u64, turns: usize) -> Result<Self, GpuError> {
        let place = || -> Result<Place, GpuError> {
            Ok(Place { memory: Pinned::new(device, bytes as usize)?, done: Event::untimed(device)? })
        };
        Ok(Self { places: (0..turns.max(1)).map(|_| place()).collect::<Result<_, _>>()?, next: 0 })
    }

    fn take(&mut self) -> usize {
        let place = self.next;
        self.next = (place + 1) % self.places.len();
        place
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // The device may still be at the pinned memory. A device in error has stopped.
        for place in &self.places {
            let _ = place.done.synchronize();
        }
    }
}

/// Tables on their way to the device.
#[derive(Debug)]
pub struct Uploads(Turns);

impl Uploads {
    /// Up to `turns` tables of at most `bytes` bytes on their way at once.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn new(device: &Device, bytes: u64, turns: usize) -> Result<Self, GpuError> {
        Turns::new(device, bytes, turns).map(Self)
    }

    /// Copies a table to the beginning of `to`, in stream order. It waits only where all turns are on their way, and
    /// cannot be captured.
    ///
    /// # Errors
    /// [`GpuError::Range`] for a table larger than a turn or than its place, or what the driver says.
    pub fn send(&mut self, stream: &Stream, to: Part<'_>, table: &[u8]) -> Result<(), GpuError> {
        let turn = self.0.take();
        let Place { memory, done } = &mut self.0.places[turn];
        done.synchronize()?;
        let bytes = memory.bytes().len() as u64;
        let Some(place) = memory.bytes_mut().get_mut(..table.len()) else {
            return Err(GpuError::Range { start: 0, end: table.len() as u64, bytes });
        };
        place.copy_from_slice(table);
        // SAFETY: nobody writes to the place before `done` has happened, and dropping it waits for that too.
        unsafe { to.upload_async(stream, place) }?;
        done.record(stream)
    }
}

/// Tables on their way from the device, which come out in the order in which they were asked for.
#[derive(Debug)]
pub struct Downloads {
    turns: Turns,
    /// The places that are on their way, and how many bytes of each.
    under_way: VecDeque<(usize, usize)>,
}

impl Downloads {
    /// Up to `turns` tables of at most `bytes` bytes under way or unread at once.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn new(device: &Device, bytes: u64, turns: usize) -> Result<Self, GpuError> {
        Ok(Self { turns: Turns::new(device, bytes, turns)?, under_way: VecDeque::new() })
    }

    /// Asks for `from`, in stream order. It waits for nothing.
    ///
    /// # Errors
    /// [`GpuError::Range`], [`GpuError::Unread`] where all turns are taken, or what the driver says.
    pub fn ask(&mut self, stream: &Stream, from: Part<'_>) -> Result<(), GpuError> {
        let turns = self.turns.places.len();
        if self.under_way.len() == turns {
            return Err(GpuError::Unread { turns });
        }
        let turn = self.turns.take();
        let Place { memory, done } = &mut self.turns.places[turn];
        let (bytes, most) = (from.bytes() as usize, memory.bytes().len() as u64);
        let Some(place) = memory.bytes_mut().get_mut(..bytes) else {
            return Err(GpuError::Range { start: 0, end: from.bytes(), bytes: most });
        };
        // SAFETY: nobody is at the place before `done` has happened, and dropping it waits for that too.
        unsafe { from.download_async(stream, place) }?;
        done.record(stream)?;
        self.under_way.push_back((turn, bytes));
        Ok(())
    }

    /// Waits for the oldest table that was asked for and not taken; `None` where there is no such table.
    ///
    /// # Errors
    /// Any error of the driver, from this call or from earlier work.
    pub fn take(&mut self) -> Result<Option<&[u8]>, GpuError> {
        let Some((turn, bytes)) = self.under_way.pop_front() else { return Ok(None) };
        let Place { memory, done } = &self.turns.places[turn];
        done.synchronize()?;
        Ok(Some(&memory.bytes()[..bytes]))
    }
}
