//! A kernel's launch on a CUDA device, put together argument by argument. Operations describe here what they launch, in builds without
//! CUDA too. Knows addresses and counts; knows no kernel.

use candle_core::{DType, Error, Result, Tensor};

use super::cuda::Kernels;

/// Dynamic shared memory that a block of today's largest cards can have.
const MOST_SHARED: u32 = 227 << 10;

/// See the module's text. What cannot be passed is told by [`Self::run`].
#[must_use = "a launch does nothing until it is run"]
pub struct Launch<'a> {
    kernels: &'a Kernels,
    /// The kernel's whole name.
    pub(super) name: String,
    /// Blocks.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) block: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
    /// Each argument's bits, in a word of its own.
    pub(super) words: Vec<u64>,
    failure: Option<Error>,
}

impl<'a> Launch<'a> {
    /// A launch of `pairwright_<what>_<dtype>`.
    pub fn new(kernels: &'a Kernels, what: &str, dtype: DType) -> Self {
        Self::named(kernels, format!("pairwright_{what}_{}", dtype.as_str()))
    }

    /// A launch of the kernel with that name.
    pub fn named(kernels: &'a Kernels, name: String) -> Self {
        Self { kernels, name, grid: [1; 3], block: 1, shared_bytes: 0, words: Vec::with_capacity(24), failure: None }
    }

    /// That many blocks of `block` threads.
    pub fn over(self, blocks: usize, block: usize) -> Self {
        self.over_all([blocks, 1, 1], block)
    }

    /// A grid of blocks of `block` threads.
    pub fn over_all(mut self, grid: [usize; 3], block: usize) -> Self {
        self.grid = grid.map(|blocks| blocks as u32);
        self.block = block as u32;
        if grid.iter().any(|&blocks| u32::try_from(blocks).is_err()) {
            self.fail(format!("a grid of {grid:?} blocks"));
        }
        self
    }

    /// With dynamic shared memory.
    pub fn shared(self, shared_bytes: usize) -> Self {
        Self { shared_bytes: shared_bytes as u32, ..self }
    }

    /// The address of a tensor's first element. The kernel takes what follows as contiguous.
    pub fn tensor(mut self, tensor: &Tensor) -> Self {
        match self.kernels.address(tensor) {
            Ok(address) => self.words.push(address),
            Err(error) => self.failure = self.failure.or(Some(error)),
        }
        self
    }

    /// The address of a tensor, or none.
    pub fn optional(mut self, tensor: Option<&Tensor>) -> Self {
        match tensor {
            Some(tensor) => self.tensor(tensor),
            None => {
                self.words.push(0);
                self
            }
        }
    }

    /// A whole number of 31 bits.
    pub fn int(mut self, value: usize) -> Self {
        match i32::try_from(value) {
            Ok(value) => self.words.push(value as u64),
            Err(_) => self.fail(format!("a count of {value}")),
        }
        self
    }

    /// A whole number of 64 bits.
    pub fn long(mut self, value: usize) -> Self {
        self.words.push(value as u64);
        self
    }

    /// A number.
    pub fn float(mut self, value: f32) -> Self {
        self.words.push(u64::from(value.to_bits()));
        self
    }

    /// Puts it into the device's queue; nothing is done for an empty grid.
    ///
    /// # Errors
    /// If an argument could not be passed, there is no such kernel, or the driver refuses.
    pub fn run(self) -> Result<()> {
        match &self.failure {
            Some(_) => Err(self.failure.unwrap_or_else(|| Error::Msg(String::new()))),
            None if self.grid.contains(&0) => Ok(()),
            None if self.shared_bytes > MOST_SHARED => {
                candle_core::bail!("kernel {}: {} bytes of shared memory", self.name, self.shared_bytes)
            }
            None => self.kernels.start(&self),
        }
    }

    fn fail(&mut self, what: String) {
        let name = &self.name;
        self.failure.get_or_insert(Error::Msg(format!("kernel {name}: {what} is too much")));
    }
}

/// Threads of a block that works on one row of `width` elements, 16 to a thread or, where that are more than `most`, more: by the width
/// alone, since they set the order of sums.
pub fn row_threads(width: usize, most: usize) -> usize {
    width.div_ceil(16).next_multiple_of(32).clamp(32, most)
}
