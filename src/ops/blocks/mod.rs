//! Matrices kept in ggml's quantised blocks. A product either rounds the batch to 8 bits and multiplies integers, or widens 32 rows
//! by 256 columns at a time into a thread's scratch and runs the house's tile over all rows of the batch, so that it has the bits
//! of the dense product with the widened weights. Formats and rounding of weights are Candle's. Knows one matrix; knows nothing
//! of files, nor of who chose its format.

mod device;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::*;
pub use device::{DeviceBlocks, Grouping, PRODUCT_THREADS, PRODUCT_TILE};
use rayon::prelude::*;

use super::BlockInputs;
use super::packing::{Fetch, row_blocks};
use super::panels::{Operands, Panels};
use super::product::{InputForm, Job, WeightMatrix};
use super::rounded::{GROUP, SUB_GROUP};
use super::simd::Isa;
use super::stored::{MatrixView, StoredFormat};
use super::tile::{MAX_ROWS, PANEL, PanelRow, Start, Tile};
use super::tile8::{IntegerIsa, Sums, Tile8};

/// Columns that are widened at a time: with 32 rows 32 KiB, which stay in the first cache while the batch passes.
pub const DEPTH: usize = 256;

/// The format in which a matrix with rows of `columns` elements is kept when `asked` was asked for: that, or else q8_0, whose
/// blocks are the smallest; `None` if its rows are whole blocks of neither.
pub fn fitting(asked: GgmlDType, columns: usize) -> Option<GgmlDType> {
    [asked, GgmlDType::Q8_0].into_iter().find(|format| columns.is_multiple_of(format.block_size()))
}

/// A matrix [rows, columns] in blocks.
trait BlockMatrix: WeightMatrix {
    /// Widens `depth` columns from `first` on of panel `panel`: element (row, k) goes to `target[k - first]`, lane
    /// row - 32 panel. Lanes past the last row become 0.
    fn widen(&self, panel: usize, first: usize, target: &mut [PanelRow<f32>]);
}

/// The product with widened weights.
fn run_widened(matrix: &impl BlockMatrix, panels: Range<usize>, job: &Job<'_>) {
    let isa = Isa::detect();
    let (k, rows) = (matrix.columns(), job.x.rows);
    let x = &job.x.dense;
    let mut chunk = vec![PanelRow([0f32; PANEL]); DEPTH.min(k)];
    let mut sums = vec![PanelRow([0f32; PANEL]); rows];
    for panel in panels {
        let width = (matrix.rows() - panel * PANEL).min(PANEL);
        for first in (0..k).step_by(DEPTH) {
            let depth = (k - first).min(DEPTH);
            matrix.widen(panel, first, &mut chunk[..depth]);
            for block in row_blocks(rows) {
                let tile = Tile {
                    rows: block.len(),
                    columns: PANEL,
                    depth,
                    a: x[block.start * k + first * block.len()..].as_ptr(),
                    a_stride: block.len(),
                    b: chunk.as_ptr().cast::<f32>(),
                    b_stride: PANEL,
                    c: sums[block.start..].as_mut_ptr().cast(),
                    c_stride: PANEL,
                    start: if first == 0 { job.start(panel) } else { Start::Accumulate },
                    next: Fetch::NONE,
                };
                // SAFETY: the tile lies within x's block of these rows, the chunk, and the sums of these rows; the first chunk
                // writes what the later ones add to.
                unsafe { tile.run(isa) };
            }
        }
        sums.iter().enumerate().for_each(|(row, sums)| job.store(panel, width, row, &sums.0));
    }
}

/// The blocks of one type, row by row.
struct Blocks<T> {
    blocks: Vec<T>,
    rows: usize,
    columns: usize,
}

impl<T: GgmlType> Blocks<T> {
    fn zeros(rows: usize, columns: usize) -> Self {
        Self { blocks: vec![T::zeros(); rows * columns / T::BLCK_SIZE], rows, columns }
    }

    /// From the blocks' bytes, which need no alignment.
    fn from_bytes(bytes: &[u8], rows: usize, columns: usize) -> Result<Self> {
        let mut this = Self::zeros(rows, columns);
        if size_of_val(&this.blocks[..]) != bytes.len() {
            candle_core::bail!("{} bytes for {} blocks of {:?}", bytes.len(), this.blocks.len(), T::DTYPE)
        }
        // SAFETY: as many bytes as the blocks take; Candle's block types are `repr(C)` of integers and halves without padding
        // (it asserts their sizes), so that any bytes are a valid block.
        unsafe {
            let target = this.blocks.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        Ok(this)
    }

    /// By rounding a dense matrix, a row at a time.
    fn quantised(source: &MatrixView<'_>) -> Self {
        let mut this = Self::zeros(source.rows, source.columns);
        let columns = source.columns;
        this.blocks.par_chunks_mut(columns / T::BLCK_SIZE).enumerate().for_each_init(
            || vec![0f32; columns],
            |wide, (row, blocks)| {
                wide.iter_mut().enumerate().for_each(|(k, value)| *value = source.element(row * columns + k));
                T::from_float(wide, blocks);
            },
        );
        this
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: Candle's block types are `repr(C)` of integers and halves without padding; bytes need no alignment.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), size_of_val(&self.blocks[..])) }
    }

    /// Blocks of columns `first..first + depth` of a row.
    fn run_of(&self, row: usize, first: usize, depth: usize) -> &[T] {
        &self.blocks[(row * self.columns + first) / T::BLCK_SIZE..][..depth / T::BLCK_SIZE]
    }
}

impl<T: GgmlType> BlockMatrix for Blocks<T> {
    fn widen(&self, panel: usize, first: usize, target: &mut [PanelRow<f32>]) {
        const LANES: usize = 16;
        let depth = target.len();
        let mut wide = [[0f32; DEPTH]; LANES];
        for half in (0..PANEL).step_by(LANES) {
            for (lane, wide) in wide.iter_mut().enumerate() {
                let row = panel * PANEL + half + lane;
                match row < self.rows {
                    true => T::to_float(self.run_of(row, first, depth), &mut wide[..depth]),
                    false => wide.fill(0.0),
                }
            }
            for (k, target) in target.iter_mut().enumerate() {
                for (lane, wide) in wide.iter().enumerate() {
                    target.0[half + lane] = wide[k];
                }
            }
        }
    }
}

impl<T: GgmlType> WeightMatrix for Blocks<T> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn input_form(&self) -> InputForm {
        InputForm::Dense
    }

    fn run(&self, panels: Range<usize>, job: &Job<'_>) {
        run_widened(self, panels, job);
    }

    fn copy_row(&self, row: usize, target: &mut [f32]) {
        T::to_float(self.run_of(row, 0, self.columns), target);
    }
}

/// Runs `$body` with `$block` standing for the type of a format's blocks.
macro_rules! with_block_type {
    ($format:expr, $block:ident => $body:expr) => {{
        macro_rules! arm {
            ($type:ty) => {{
                type $block = $type;
                $body
            }};
        }
        match $format {
            GgmlDType::Q4_0 => arm!(BlockQ4_0),
            GgmlDType::Q4_1 => arm!(BlockQ4_1),
            GgmlDType::Q5_0 => arm!(BlockQ5_0),
            GgmlDType::Q5_1 => arm!(BlockQ5_1),
            GgmlDType::Q8_0 => arm!(BlockQ8_0),
            GgmlDType::Q8_1 => arm!(BlockQ8_1),
            GgmlDType::Q2K => arm!(BlockQ2K),
            GgmlDType::Q3K => arm!(BlockQ3K),
            GgmlDType::Q4K => arm!(BlockQ4K),
            GgmlDType::Q5K => arm!(BlockQ5K),
            GgmlDType::Q6K => arm!(BlockQ6K),
            GgmlDType::Q8K => arm!(BlockQ8K),
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                candle_core::bail!("{:?} has no blocks", $format)
            }
        }
    }};
}

/// A matrix whose blocks lie as the integer product reads them.
struct Integers {
    panels: Panels,
    inputs: BlockInputs,
}

impl BlockMatrix for Integers {
    fn widen(&self, panel: usize, first: usize, target: &mut [PanelRow<f32>]) {
        self.panels.widen(panel, first, target);
    }
}

impl WeightMatrix for Integers {
    fn rows(&self) -> usize {
        self.panels.rows()
    }

    fn columns(&self) -> usize {
        self.panels.columns()
    }

    fn input_form(&self) -> InputForm {
        match self.inputs {
            BlockInputs::Int8 => InputForm::Rounded,
            BlockInputs::F32 => InputForm::Dense,
        }
    }

    fn copy_row(&self, row: usize, target: &mut [f32]) {
        self.panels.copy_row(row, target);
    }

    fn run(&self, panels: Range<usize>, job: &Job<'_>) {
        if self.inputs == BlockInputs::F32 {
            return run_widened(self, panels, job);
        }
        let (isa, k, x) = (IntegerIsa::detect(), self.columns(), &job.x.rounded);
        let mut operands = Operands::new();
        let num_blocks = row_blocks(x.rows).count();
        let mut sums = vec![Sums([[0.0; PANEL]; MAX_ROWS]); num_blocks];
        for panel in panels {
            let start = job.start_row(panel);
            sums.iter_mut().for_each(|sums| sums.0.fill(start));
            for first in (0..k).step_by(DEPTH) {
                let depth = (k - first).min(DEPTH);
                let operand = self.panels.operand(panel, first, depth, &mut operands);
                let next = self.panels.behind(panel, first + depth);
                for (index, (block, sums)) in row_blocks(x.rows).zip(&mut sums).enumerate() {
                    let part = |per: usize| {
                        let start = block.start * k / per + first / per * block.len();
                        start..start + depth / per * block.len()
                    };
                    let tile = Tile8 {
                        rows: block.len(),
                        a: &x.quants[part(4)],
                        a_scales: &x.scales[part(GROUP)],
                        a_sums: &x.sums[part(SUB_GROUP)],
                        a_scaled_sums: &x.scaled_sums[part(GROUP)],
                        b: operand.quants,
                        b_scales: operand.scales,
                        b_mins: operand.mins,
                        kind: self.panels.kind(),
                        next: Fetch::part(next.as_ptr(), next.len(), index, num_blocks),
                    };
                    tile.run(isa, sums);
                }
            }
            for (block, sums) in row_blocks(x.rows).zip(&sums) {
                job.store_rows(panel, self.rows(), block.start, &sums.0[..block.len()]);
            }
        }
    }
}

/// The bytes of a matrix in `format`'s blocks: as they are stored, or those of a dense one rounded.
fn bytes_in<'a>(format: GgmlDType, source: &MatrixView<'a>) -> Result<Cow<'a, [u8]>> {
    source.validate()?;
    StoredFormat::Blocks(format).row_bytes(source.columns)?;
    match source.format {
        StoredFormat::Dense(_) => {
            with_block_type!(format, Block => Ok(Cow::Owned(Blocks::<Block>::quantised(source).bytes().to_vec())))
        }
        StoredFormat::Blocks(stored) if stored == format => Ok(Cow::Borrowed(source.bytes)),
        StoredFormat::Blocks(stored) => candle_core::bail!("a matrix in {stored:?} blocks, asked for in {format:?}"),
    }
}

/// A matrix in `format`'s blocks: a stored one of that format as it is, a dense one rounded. `inputs`: how the batch enters its
/// products, where the format has a choice.
///
/// # Errors
/// If the rows are not whole blocks, the size is wrong, or the matrix is stored in another block format.
pub fn matrix(format: GgmlDType, source: &MatrixView<'_>, inputs: BlockInputs) -> Result<Arc<dyn WeightMatrix>> {
    let (bytes, rows, columns) = (bytes_in(format, source)?, source.rows, source.columns);
    match Panels::new(format, &bytes, rows, columns) {
        Some(panels) => Ok(Arc::new(Integers { panels, inputs })),
        None => with_block_type!(format, Block => Ok(Arc::new(Blocks::<Block>::from_bytes(&bytes, rows, columns)?))),
    }
}
