//! Memory of the host that the device reads by itself, while the host goes on, and the way of weights through it. Knows bytes and the
//! queue; knows no tensor.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, sys,
};
use rayon::prelude::*;

/// Memory that copies to the device begin from.
pub(super) struct Pinned<T: ValidAsZeroBits> {
    stream: Arc<CudaStream>,
    host: PinnedHostSlice<T>,
    /// Behind the last copy in the queue: the memory is read until then.
    copied: CudaEvent,
    is_read: bool,
}

impl<T: DeviceRepr + ValidAsZeroBits> Pinned<T> {
    pub(super) fn new(stream: &Arc<CudaStream>, len: usize) -> Result<Self> {
        let context = stream.context();
        // SAFETY: of `T` no bits are wrong; what is not written is not read but by copies.
        let host = unsafe { context.alloc_pinned::<T>(len) }.w()?;
        Ok(Self { stream: stream.clone(), host, copied: context.new_event(None).w()?, is_read: false })
    }

    pub(super) fn len(&self) -> usize {
        self.host.len()
    }

    /// Puts a copy of `range` to `target`, an address on the device with room for it, into the queue. Until [`Self::wait`] nobody writes
    /// there.
    pub(super) fn send(&mut self, range: Range<usize>, target: u64) -> Result<()> {
        let source = &self.host.as_slice().w()?[range];
        self.stream.context().bind_to_thread().w()?;
        self.is_read = true;
        // SAFETY: the source lives until `copied`, for which whoever drops it waits; callers name room on the device.
        unsafe {
            sys::cuMemcpyHtoDAsync_v2(target, source.as_ptr().cast(), size_of_val(source), self.stream.cu_stream())
        }
        .result()
        .w()?;
        self.copied.record(&self.stream).w()
    }
}

impl<T: ValidAsZeroBits> Pinned<T> {
    /// All of it, to be written where no copy reads.
    pub(super) fn host(&mut self) -> Result<&mut [T]> {
        self.host.as_mut_slice().w()
    }

    /// Waits for the copies that were sent.
    pub(super) fn wait(&mut self) -> Result<()> {
        if self.is_read {
            self.copied.synchronize().w()?;
        }
        self.is_read = false;
        Ok(())
    }
}

impl<T: ValidAsZeroBits> Drop for Pinned<T> {
    fn drop(&mut self) {
        // Where the device failed nothing is read any more.
        let _ = self.wait();
    }
}

/// Pieces, and bytes of each: some are filled while the device fetches others.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 8 << 20;
/// What a thread copies at once.
const PART_BYTES: usize = 512 << 10;

/// The way of much data: all threads fill a piece, which the device fetches while they fill the next. One thread alone is slower than the
/// bus, and memory that is not pinned the driver copies by one.
pub(super) struct Uploads {
    pieces: Vec<Pinned<u8>>,
    next: usize,
}

impl Uploads {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        let pieces = (0..PIECES).map(|_| Pinned::new(stream, PIECE_BYTES)).collect::<Result<_>>()?;
        Ok(Self { pieces, next: 0 })
    }

    /// Brings `bytes` to `target`, an address on the device with room for them: there when the queue has come so far.
    pub(super) fn send(&mut self, bytes: &[u8], mut target: u64) -> Result<()> {
        for part in bytes.chunks(PIECE_BYTES) {
            let piece = &mut self.pieces[self.next];
            self.next = (self.next + 1) % PIECES;
            piece.wait()?;
            let room = &mut piece.host()?[..part.len()];
            let parts = room.par_chunks_mut(PART_BYTES).zip(part.par_chunks(PART_BYTES));
            parts.for_each(|(room, part)| room.copy_from_slice(part));
            piece.send(0..part.len(), target)?;
            target += part.len() as u64;
        }
        Ok(())
    }
}
