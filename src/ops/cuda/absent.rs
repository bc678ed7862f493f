//! Stands in for `mod.rs` in builds without CUDA: the same names, of which there is nothing to be had.

use std::convert::Infallible;

use candle_core::{DType, Device, Result, Tensor};

use super::launch::Launch;
use super::{About, DeviceError};

/// Kernels of a CUDA device. There are none.
#[derive(Debug, Clone)]
pub struct Kernels(Infallible);

impl Kernels {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(_index: usize) -> std::result::Result<(Device, Self), DeviceError> {
        Err(DeviceError::NotBuilt { device: "cuda" })
    }

    pub(super) fn address(&self, _tensor: &Tensor) -> Result<u64> {
        match self.0 {}
    }

    pub(super) fn upload(
        &self,
        _loading: &mut Loading,
        _bytes: &[u8],
        _dtype: DType,
        _shape: &[usize],
    ) -> Result<Tensor> {
        match self.0 {}
    }

    pub(super) fn start(&self, _launch: &Launch<'_>) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn plan(
        &self,
        _loading: &mut Loading,
        _weight: &Tensor,
        _scales: Option<&Tensor>,
        _bias: Option<&Tensor>,
        _output: DType,
    ) -> Result<std::result::Result<Plan, String>> {
        match self.0 {}
    }

    pub(super) fn scales_fp8_rows(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn offers_warpgroups(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn with_warpgroups(self, _is_right: bool) -> Self {
        self
    }

    pub(super) fn has_warpgroups(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn multiprocessors(&self) -> usize {
        match self.0 {}
    }

    /// Nothing to capture.
    ///
    /// # Errors
    /// None.
    pub fn capture(&self, _work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        match self.0 {}
    }

    /// Nothing to wait for.
    ///
    /// # Errors
    /// None.
    pub fn wait(&self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn about(&self) -> Result<About> {
        match self.0 {}
    }

    pub(super) fn staging(&self) -> Result<Staging> {
        match self.0 {}
    }

    /// Short description of the card.
    pub fn describe(&self) -> String {
        match self.0 {}
    }
}

/// What matrices that go to one device, one after the other, have in common: nothing.
#[derive(Default)]
pub struct Loading(());

impl Loading {
    /// None.
    pub fn slow_products(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Work that was captured.
pub struct Graph(Infallible);

impl Graph {
    /// Nothing to launch.
    ///
    /// # Errors
    /// None.
    pub fn launch(&self) -> Result<()> {
        match self.0 {}
    }
}

/// Memory that a step's numbers go through.
pub struct Staging(Infallible);

impl Staging {
    pub(super) fn clear(&mut self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn num_moves(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn push(&mut self, _numbers: &[u32], _capacity: usize) -> Result<Tensor> {
        match self.0 {}
    }

    pub(super) fn send(&mut self) -> Result<()> {
        match self.0 {}
    }
}

/// How products with one matrix are computed.
#[derive(Clone)]
pub struct Plan(Infallible);

/// A part of a product's rows.
pub struct Part {
    pub rows: usize,
    pub padded_rows: usize,
}

impl Plan {
    pub(in crate::ops) fn part(&self, _kernels: &Kernels, _m: usize) -> Result<Part> {
        match self.0 {}
    }

    pub(in crate::ops) fn most_padding(&self) -> usize {
        match self.0 {}
    }

    pub(in crate::ops) fn run(
        &self,
        _kernels: &Kernels,
        _part: &Part,
        _x: &Tensor,
        _scales: Option<&Tensor>,
        _y: &Tensor,
    ) -> Result<()> {
        match self.0 {}
    }
}
