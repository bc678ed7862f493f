//! Products with matrices in quantised blocks, and rows of such tables: quants and scales laid out as block_product.cuh says, against the
//! numbers that they stand for.

use half::{bf16, f16};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten};

/// A format: bits of a quant, whether factors multiply the scales of 256 inputs, and the quant that is worth nothing.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    name: &'static str,
    bits: usize,
    is_long: bool,
    zero: u8,
}

const FORMATS: [Blocks; 6] = [
    Blocks { name: "b4", bits: 4, is_long: false, zero: 8 },
    Blocks { name: "b5", bits: 5, is_long: false, zero: 0 },
    Blocks { name: "b8", bits: 8, is_long: false, zero: 128 },
    Blocks { name: "b4k", bits: 4, is_long: true, zero: 0 },
    Blocks { name: "b5k", bits: 5, is_long: true, zero: 0 },
    Blocks { name: "b6k", bits: 6, is_long: true, zero: 32 },
];

/// Outputs and inputs of a unit.
const OUTPUTS: usize = 32;
const INPUTS: usize = 64;

/// Matrices [out, in], as units and as numbers.
struct Matrices {
    blocks: Blocks,
    inputs: usize,
    outputs: usize,
    units: Vec<u8>,
    /// [matrices, out, in]
    values: Vec<f32>,
}

impl Matrices {
    fn random(random: &mut Random, blocks: Blocks, count: usize, inputs: usize, outputs: usize) -> Self {
        let (panels, steps) = (outputs.div_ceil(OUTPUTS), inputs.div_ceil(INPUTS));
        let mut this = Self { blocks, inputs, outputs, units: Vec::new(), values: vec![0.0; count * outputs * inputs] };
        for matrix in 0..count {
            for panel in 0..panels {
                for step in 0..steps {
                    let unit = this.unit(random, (matrix, panel * OUTPUTS, step * INPUTS));
                    this.units.extend(unit);
                }
            }
        }
        this
    }

    /// A unit of random numbers, those beyond the matrix included; its values are kept.
    fn unit(&mut self, random: &mut Random, (matrix, first_output, first_input): (usize, usize, usize)) -> Vec<u8> {
        let Blocks { bits, is_long, zero, .. } = self.blocks;
        let low_bytes = if bits == 8 { 2048 } else { 1024 };
        let high_bytes = [0, 256, 512, 0, 0][bits - 4];
        let mut unit = vec![0u8; low_bytes + high_bytes + 256];
        let scales = low_bytes + high_bytes;
        for output in 0..OUTPUTS {
            let pair = is_long.then(|| put_pair(&mut unit, random, scales + output * 4, 0.01));
            for group in 0..2 {
                let at = scales + (group * OUTPUTS + output) * 4;
                let (factors, least) = match pair {
                    None => {
                        let (scale, least) = put_pair(&mut unit, random, at, 0.1);
                        ([scale; 2], least)
                    }
                    Some((scale, least)) => {
                        let bytes = [random.below(256) as u8, random.below(256) as u8];
                        unit[scales + 128 + output * 4 + group * 2..][..2].copy_from_slice(&bytes);
                        match bits {
                            6 => (bytes.map(|byte| scale * f32::from(byte as i8)), 0.0),
                            _ => ([scale * f32::from(bytes[0]); 2], least * f32::from(bytes[1])),
                        }
                    }
                };
                for input in 0..32 {
                    let quant = random.below(1 << bits);
                    put_quant(&mut unit, bits, (output, group, input), quant);
                    let (output, input_of) = (first_output + output, first_input + group * 32 + input);
                    if output < self.outputs && input_of < self.inputs {
                        let value = factors[input / 16] * (quant as f32 - f32::from(zero)) - least;
                        self.values[(matrix * self.outputs + output) * self.inputs + input_of] = value;
                    }
                }
            }
        }
        unit
    }

    fn run<T: Format>(&self, x: &[T], grouping: Option<(&[u32], &[u32])>, bias: Option<&[f32]>, tile: usize) -> Vec<T> {
        let groups = grouping.map_or(1, |(_, bounds)| bounds.len() - 1);
        let num_rows = grouping.map_or(x.len() / self.inputs, |(rows, _)| rows.len());
        // Beside other outputs, which stay as they are.
        let (before, width) = (5, self.outputs + 9);
        let mut y = unwritten::<T>(num_rows * width);
        let name = format!("pairwright_block_product_{}_{}_{tile}", self.blocks.name, T::NAME);
        let grid = [(num_rows / 64 + groups) as u32, self.outputs.div_ceil(tile) as u32, 1];
        let launch = Launch::new(&name, grid, 128).input(x).maybe(grouping.map(|(rows, _)| rows));
        let launch = launch.maybe(grouping.map(|(_, bounds)| bounds)).input(&self.units).maybe(bias).output(&mut y);
        let launch = launch.int(groups).int(num_rows).int(self.inputs).int(self.outputs).int(width).int(before);
        launch.int(0).float(f32::from(self.blocks.zero)).run();
        let own = |row: &[T]| {
            let (left, rest) = row.split_at(before);
            let (own, right) = rest.split_at(self.outputs);
            assert!(left.iter().chain(right).all(|value| value.wide().is_nan()), "another's outputs are written to");
            own.to_vec()
        };
        y.chunks(width).flat_map(own).collect()
    }

    /// The row by matrix `matrix`, whose numbers enter as `T` has them.
    fn want<T: Format>(&self, x: &[T], matrix: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let output = |output: usize| {
            let row = &self.values[(matrix * self.outputs + output) * self.inputs..][..self.inputs];
            let products = x.iter().zip(row).map(|(x, &w)| f64::from(x.wide()) * f64::from(T::rounded(w).wide()));
            (products.sum::<f64>() + f64::from(bias.map_or(0.0, |bias| bias[matrix * self.outputs + output]))) as f32
        };
        (0..self.outputs).map(output).collect()
    }
}

/// Writes a random scale and min.
fn put_pair(unit: &mut [u8], random: &mut Random, at: usize, size: f32) -> (f32, f32) {
    let [scale, least] = [0, 2].map(|offset| {
        let value = f16::from_f32(size * (random.below(1000) as f32 / 1000.0 - 0.3));
        unit[at + offset..][..2].copy_from_slice(&value.to_le_bytes());
        value.to_f32()
    });
    (scale, least)
}

/// Writes the quant of one output and of input `input` of a group of 32.
fn put_quant(unit: &mut [u8], bits: usize, (output, group, input): (usize, usize, usize), quant: usize) {
    // Inputs 2t, 2t + 1, 2t + 8, 2t + 9 of either half of the group are lane part t's.
    let (half, within) = (input / 16, input % 16);
    let (part, i) = (within % 8 / 2, half * 4 + within / 8 * 2 + within % 2);
    if bits == 8 {
        unit[((group * 2 + half) * OUTPUTS + output) * 16 + part * 4 + i % 4] = quant as u8;
        return;
    }
    let place = (group * OUTPUTS + output) * 4 + part;
    unit[place * 4 + i / 2] |= ((quant & 15) << (i % 2 * 4)) as u8;
    match bits {
        5 => unit[1024 + place] |= (quant >> 4 << i) as u8,
        6 => unit[1024 + place * 2 + i / 4] |= (quant >> 4 << (i % 4 * 2)) as u8,
        _ => {}
    }
}

fn check_product<T: Format>(random: &mut Random, blocks: Blocks, (rows, inputs, outputs): (usize, usize, usize)) {
    let matrices = Matrices::random(random, blocks, 1, inputs, outputs);
    let x: Vec<T> = random.numbers(rows * inputs, 1.0);
    let bias: Vec<f32> = random.numbers(outputs, 1.0);
    let y = matrices.run(&x, None, Some(&bias), 64);
    let want: Vec<f32> = x.chunks(inputs).flat_map(|x| matrices.want(x, 0, Some(&bias))).collect();
    let what = format!("{blocks:?}, {rows} rows of {inputs} to {outputs}");
    // An f32 sum of numbers of size 1 or so; a number may round to its neighbour in T where its f32 is on the edge.
    assert_near(&y, &want, T::STEP, 2.0 * (inputs as f32).sqrt(), &what);
    assert_eq!(matrices.run(&x, None, Some(&bias), 32), y, "{what}: other tiles");
    let last = (rows - 1) * inputs;
    assert_eq!(matrices.run(&x[last..], None, Some(&bias), 64), y[(rows - 1) * outputs..], "{what}: alone");
}

#[test]
fn products_with_blocks() {
    let mut random = Random(90);
    for blocks in FORMATS {
        check_product::<bf16>(&mut random, blocks, (3, 256, 40));
    }
    // More rows than a tile has, and the other formats of numbers.
    check_product::<f16>(&mut random, FORMATS[5], (70, 256, 33));
    check_product::<f16>(&mut random, FORMATS[1], (5, 128, 70));
    check_product::<f32>(&mut random, FORMATS[3], (17, 256, 40));
    check_product::<f32>(&mut random, FORMATS[2], (2, 128, 33));
    // Rows that are no multiple of a unit's inputs.
    FORMATS[..3].iter().for_each(|&blocks| check_product::<bf16>(&mut random, blocks, (1, 96, 64)));
}

#[test]
fn products_with_blocks_by_expert() {
    let mut random = Random(91);
    for blocks in [FORMATS[2], FORMATS[3], FORMATS[5]] {
        let (inputs, outputs) = (256, 33);
        let matrices = Matrices::random(&mut random, blocks, 3, inputs, outputs);
        let x: Vec<bf16> = random.numbers(80 * inputs, 1.0);
        // 66 rows of the first matrix, none of the second, 14 of the third.
        let (bounds, rows): (_, Vec<u32>) = ([0, 66, 66, 80], (0..80).rev().collect());
        let y = matrices.run(&x, Some((&rows, &bounds)), None, 64);
        let place = |(place, &row): (usize, &u32)| {
            matrices.want(&x[row as usize * inputs..][..inputs], if place < 66 { 0 } else { 2 }, None)
        };
        let want: Vec<f32> = rows.iter().enumerate().flat_map(place).collect();
        assert_near(&y, &want, bf16::STEP, 2.0 * (inputs as f32).sqrt(), &format!("{blocks:?} by expert"));
    }
}

fn check_gathering<T: Format>(random: &mut Random, blocks: Blocks, width: usize) {
    let matrices = Matrices::random(random, blocks, 1, width, 50);
    let ids = [49u32, 0, u32::MAX, 31, 32];
    let mut out = unwritten::<T>(ids.len() * width);
    let name = format!("pairwright_gather_blocks_{}_{}", blocks.name, T::NAME);
    let launch = Launch::new(&name, [ids.len() as u32, 1, 1], 32).input(&matrices.units).input(&ids).output(&mut out);
    launch.int(width).float(f32::from(blocks.zero)).run();
    let row = |&id: &u32| match id {
        u32::MAX => vec![0.0; width],
        id => matrices.values[id as usize * width..][..width].to_vec(),
    };
    let want: Vec<f32> = ids.iter().flat_map(row).collect();
    assert_near(&out, &want, T::STEP, 1e-3, &format!("{blocks:?}: rows of {width}"));
}

#[test]
fn rows_of_a_table_in_blocks() {
    let mut random = Random(92);
    for blocks in FORMATS {
        check_gathering::<bf16>(&mut random, blocks, 256);
        check_gathering::<f16>(&mut random, blocks, 512);
        check_gathering::<f32>(&mut random, blocks, if blocks.is_long { 256 } else { 96 });
    }
}
