//! Rows of a table: exact, but for the factor's rounding.

use half::{bf16, f16};

use super::machine::Launch;
use super::numbers::{Format, Random, unwritten};

fn gather<T: Format>(table: &[T], ids: &[u32], width: usize, factor: f32) -> Vec<T> {
    let mut out = unwritten(ids.len() * width);
    let name = format!("pairwright_gather_{}", T::NAME);
    let launch = Launch::new(&name, [ids.len() as u32, 1, 1], 64).input(table).input(ids).output(&mut out);
    launch.int(width).float(factor).run();
    out
}

fn check<T: Format>(random: &mut Random) {
    for width in [1, 8, 63, 640, 1001] {
        let table: Vec<T> = random.numbers(50 * width, 2.0);
        let mut ids: Vec<u32> = (0..9).map(|_| random.below(50) as u32).collect();
        ids[4] = u32::MAX;
        for factor in [1.0, 12.5] {
            let rows = gather(&table, &ids, width, factor);
            for (&id, row) in ids.iter().zip(rows.chunks(width)) {
                let want: Vec<T> = match id {
                    u32::MAX => vec![T::rounded(0.0); width],
                    id => {
                        let source = &table[id as usize * width..][..width];
                        source.iter().map(|value| T::rounded(value.wide() * factor)).collect()
                    }
                };
                assert_eq!(row, want, "row {id} of width {width}");
            }
        }
    }
}

#[test]
fn rows_come_from_the_table_and_padding_is_zeros() {
    let mut random = Random(20);
    check::<f32>(&mut random);
    check::<f16>(&mut random);
    check::<bf16>(&mut random);
}
