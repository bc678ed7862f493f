//! Choosing experts, grouping rows by them, their products, and putting rows together again: against the definition, token by token.

use half::{bf16, f16};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten, wide};

/// k experts of a token with their weights, ascending by expert.
fn choose(scores: &[f32], k: usize, is_normalised: bool, scale: Option<&[f32]>) -> Vec<(u32, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let exp = |expert: usize| f64::from(scores[expert] - scores[order[0]]).exp();
    let among = if is_normalised { &order[..k] } else { &order[..] };
    let total: f64 = among.iter().map(|&expert| exp(expert)).sum();
    let mut chosen = order[..k].to_vec();
    chosen.sort_unstable();
    let weight = |expert: usize| (exp(expert) / total) as f32 * scale.map_or(1.0, |scale| scale[expert]);
    chosen.iter().map(|&expert| (expert as u32, weight(expert))).collect()
}

fn route<T: Format>(
    scores: &[T],
    num_experts: usize,
    k: usize,
    is_normalised: bool,
    scale: Option<&[f32]>,
) -> (Vec<u32>, Vec<f32>) {
    let tokens = scores.len() / num_experts;
    let (mut chosen, mut weights) = (vec![u32::MAX; tokens * k], unwritten(tokens * k));
    let name = format!("pairwright_route_{}", T::NAME);
    let launch = Launch::new(&name, [tokens as u32, 1, 1], 32).input(scores).output(&mut chosen).output(&mut weights);
    let launch = launch.int(num_experts).int(k).int(usize::from(is_normalised));
    launch.maybe(scale).run();
    (chosen, weights)
}

fn check_routing<T: Format>(random: &mut Random) {
    for (tokens, num_experts, k) in [(1, 1, 1), (7, 8, 2), (5, 33, 4), (4, 128, 8), (3, 512, 16), (3, 16, 16)] {
        let mut scores: Vec<T> = random.numbers(tokens * num_experts, 4.0);
        // Equal ones, of either sign.
        scores.iter_mut().step_by(3).for_each(|score| *score = T::rounded(1.5));
        scores.iter_mut().step_by(5).for_each(|score| *score = T::rounded(-2.0));
        let scale: Vec<f32> = random.numbers(num_experts, 2.0);
        for (is_normalised, scale) in [(true, None), (false, None), (true, Some(&scale[..]))] {
            let (chosen, weights) = route(&scores, num_experts, k, is_normalised, scale);
            let want = wide(&scores);
            let want = want.chunks(num_experts).flat_map(|scores| choose(scores, k, is_normalised, scale));
            let (want_chosen, want_weights): (Vec<u32>, Vec<f32>) = want.unzip();
            assert_eq!(chosen, want_chosen, "{k} of {num_experts}");
            assert_near(&weights, &want_weights, 1e-6, 1e-3, &format!("weights of {k} of {num_experts}"));
            let last = route(&scores[(tokens - 1) * num_experts..], num_experts, k, is_normalised, scale);
            assert_eq!(last, (chosen[(tokens - 1) * k..].to_vec(), weights[(tokens - 1) * k..].to_vec()));
        }
    }
}

#[test]
fn the_best_experts_are_chosen_and_weighed() {
    let mut random = Random(80);
    check_routing::<f32>(&mut random);
    check_routing::<f16>(&mut random);
    check_routing::<bf16>(&mut random);
}

/// Rows grouped by expert as the kernel leaves them.
struct Groups {
    rows: Vec<u32>,
    places: Vec<u32>,
    bounds: Vec<u32>,
}

impl Groups {
    fn new(chosen: &[u32], num_experts: usize, k: usize) -> Self {
        let (mut rows, mut places) = (vec![u32::MAX; chosen.len()], vec![u32::MAX; chosen.len()]);
        let mut bounds = vec![u32::MAX; num_experts + 1];
        let launch = Launch::new("pairwright_group_rows", [1, 1, 1], 512).input(chosen).output(&mut rows);
        launch.output(&mut places).output(&mut bounds).int(chosen.len() / k).int(num_experts).int(k).run();
        Self { rows, places, bounds }
    }
}

/// Different experts for each token, ascending.
fn random_choice(random: &mut Random, tokens: usize, num_experts: usize, k: usize) -> Vec<u32> {
    let one = |_| {
        let mut left: Vec<u32> = (0..num_experts as u32).collect();
        let mut chosen: Vec<u32> = (0..k).map(|_| left.swap_remove(random.below(left.len()))).collect();
        chosen.sort_unstable();
        chosen
    };
    (0..tokens).flat_map(one).collect()
}

#[test]
fn rows_are_grouped_in_their_order() {
    let mut random = Random(81);
    for (tokens, num_experts, k) in [(1, 1, 1), (1, 64, 8), (3, 5, 2), (700, 32, 4), (2048, 512, 8), (33, 16, 16)] {
        let chosen = random_choice(&mut random, tokens, num_experts, k);
        let groups = Groups::new(&chosen, num_experts, k);
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|&index| chosen[index]);
        let rows: Vec<u32> = order.iter().map(|&index| (index / k) as u32).collect();
        let mut places = vec![0; chosen.len()];
        order.iter().enumerate().for_each(|(place, &index)| places[index] = place as u32);
        let before = |expert: usize| chosen.iter().filter(|&&other| (other as usize) < expert).count() as u32;
        let bounds: Vec<u32> = (0..=num_experts).map(before).collect();
        assert_eq!((groups.rows, groups.places, groups.bounds), (rows, places, bounds), "{tokens} of {num_experts}");
    }
}

struct Product<T> {
    num_experts: usize,
    inputs: usize,
    outputs: usize,
    /// [E, out, in]
    weights: Vec<T>,
    bias: Option<Vec<f32>>,
}

impl<T: Format> Product<T> {
    fn new(random: &mut Random, num_experts: usize, inputs: usize, outputs: usize, has_bias: bool) -> Self {
        let weights = random.numbers(num_experts * outputs * inputs, 1.0);
        let bias = has_bias.then(|| random.numbers(num_experts * outputs, 1.0));
        Self { num_experts, inputs, outputs, weights, bias }
    }

    fn run(&self, x: &[T], rows: Option<&[u32]>, bounds: &[u32]) -> Vec<T> {
        self.run_to(x, rows, Some(bounds), bounds[self.num_experts] as usize)
    }

    /// To results of T, or of f32; without `bounds` all rows by the one matrix.
    fn run_to<Y: Format>(&self, x: &[T], rows: Option<&[u32]>, bounds: Option<&[u32]>, num_rows: usize) -> Vec<Y> {
        let mut y = unwritten(num_rows * self.outputs);
        let row_tiles = if bounds.is_some() { num_rows / 64 + self.num_experts } else { num_rows.div_ceil(64) };
        let grid = [row_tiles as u32, self.outputs.div_ceil(64) as u32, 1];
        let name = format!("pairwright_grouped_product_{}", T::NAME);
        let launch = Launch::new(&name, grid, 128).input(x);
        let launch = launch.maybe(rows).maybe(bounds).input(&self.weights).maybe(self.bias.as_deref());
        let launch = launch.output(&mut y).int(self.num_experts).int(num_rows).int(self.inputs).int(self.outputs);
        launch.int(usize::from(Y::NAME == "f32")).run();
        y
    }

    /// Row `x` by the matrix of `expert`.
    fn want(&self, x: &[T], expert: usize) -> Vec<f32> {
        let output = |output: usize| {
            let column = &self.weights[(expert * self.outputs + output) * self.inputs..][..self.inputs];
            let products = x.iter().zip(column).map(|(x, weight)| f64::from(x.wide()) * f64::from(weight.wide()));
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[expert * self.outputs + output]);
            (products.sum::<f64>() + f64::from(bias)) as f32
        };
        (0..self.outputs).map(output).collect()
    }
}

fn check_product<T: Format>(random: &mut Random, shape: (usize, usize, usize, usize, usize), has_bias: bool) {
    let (tokens, num_experts, k, inputs, outputs) = shape;
    let product: Product<T> = Product::new(random, num_experts, inputs, outputs, has_bias);
    let chosen = random_choice(random, tokens, num_experts, k);
    let groups = Groups::new(&chosen, num_experts, k);
    let x: Vec<T> = random.numbers(tokens * inputs, 1.0);
    let y = product.run(&x, Some(&groups.rows), &groups.bounds);
    let row = |token: usize| &x[token * inputs..][..inputs];
    let mut want = vec![0f32; y.len()];
    for (index, &place) in groups.places.iter().enumerate() {
        let values = product.want(row(index / k), chosen[index] as usize);
        want[place as usize * outputs..][..outputs].copy_from_slice(&values);
    }
    // A sum of `inputs` products of size 1 at most.
    let what = format!("{T} {shape:?}", T = T::NAME);
    assert_near(&y, &want, T::STEP, (inputs as f32).sqrt(), &what);
    // The same rows laid out as they are grouped.
    let gathered: Vec<T> = groups.rows.iter().flat_map(|&token| row(token as usize).to_vec()).collect();
    assert_eq!(product.run(&gathered, None, &groups.bounds), y, "{what}: gathered");
    // The last token by itself.
    let alone = Groups::new(&chosen[(tokens - 1) * k..], num_experts, k);
    let of_last = product.run(row(tokens - 1), Some(&alone.rows), &alone.bounds);
    for j in 0..k {
        let place = groups.places[(tokens - 1) * k + j] as usize;
        assert_eq!(of_last[j * outputs..][..outputs], y[place * outputs..][..outputs], "{what}: alone");
    }
}

/// Tokens, experts, experts of each, inputs, outputs: more than a tile of each, parts of tiles, and experts without rows.
const SHAPES: [(usize, usize, usize, usize, usize); 4] =
    [(1, 40, 3, 8, 1), (70, 2, 2, 72, 66), (90, 3, 1, 136, 64), (5, 9, 2, 192, 30)];

#[test]
fn products_by_expert_in_f32() {
    SHAPES.iter().for_each(|&shape| check_product::<f32>(&mut Random(82), shape, true));
}

#[test]
fn products_by_expert_in_f16() {
    SHAPES.iter().for_each(|&shape| check_product::<f16>(&mut Random(83), shape, true));
}

#[test]
fn products_by_expert_in_bf16() {
    SHAPES.iter().for_each(|&shape| check_product::<bf16>(&mut Random(84), shape, false));
}

/// Rows by one matrix, as where the vendor's library has no such product: those of one group, narrow and wide.
fn check_one_matrix<T: Format>(random: &mut Random) {
    for (num_rows, inputs, outputs, has_bias) in [(1, 8, 5, true), (64, 72, 64, false), (131, 40, 130, true)] {
        let product: Product<T> = Product::new(random, 1, inputs, outputs, has_bias);
        let x: Vec<T> = random.numbers(num_rows * inputs, 1.0);
        let what = format!("{T} {num_rows} x {inputs} x {outputs}", T = T::NAME);
        let y: Vec<T> = product.run_to(&x, None, None, num_rows);
        assert_eq!(y, product.run(&x, None, &[0, num_rows as u32]), "{what}: as one group");
        let sums: Vec<f32> = product.run_to(&x, None, None, num_rows);
        let want: Vec<f32> = x.chunks(inputs).flat_map(|row| product.want(row, 0)).collect();
        assert_near(&sums, &want, f32::STEP, (inputs as f32).sqrt(), &what);
        assert_eq!(y, sums.iter().map(|&sum| T::rounded(sum)).collect::<Vec<_>>(), "{what}: rounded");
    }
}

#[test]
fn products_by_one_matrix() {
    let mut random = Random(85);
    check_one_matrix::<f32>(&mut random);
    check_one_matrix::<f16>(&mut random);
    check_one_matrix::<bf16>(&mut random);
}

fn check_combining<T: Format>(random: &mut Random) {
    for (tokens, k, width) in [(1, 1, 1), (4, 3, 264), (3, 8, 77)] {
        let y: Vec<T> = random.numbers(tokens * k * width, 2.0);
        let weights: Vec<f32> = random.numbers(tokens * k, 1.0);
        let mut places: Vec<u32> = (0..(tokens * k) as u32).collect();
        (1..places.len()).for_each(|index| places.swap(index, random.below(index + 1)));
        let run = |places: &[u32], weights: &[f32]| {
            let mut out = unwritten::<T>(places.len() / k * width);
            let name = format!("pairwright_combine_{}", T::NAME);
            let launch = Launch::new(&name, [(places.len() / k) as u32, 1, 1], 64).input(&y).input(places);
            launch.input(weights).output(&mut out).int(width).int(k).run();
            out
        };
        let out = run(&places, &weights);
        let element = |index: usize| {
            let (token, column) = (index / width, index % width);
            let terms = (token * k..(token + 1) * k)
                .map(|entry| f64::from(y[places[entry] as usize * width + column].wide()) * f64::from(weights[entry]));
            terms.sum::<f64>() as f32
        };
        let want: Vec<f32> = (0..tokens * width).map(element).collect();
        assert_near(&out, &want, T::STEP, 1.0, &format!("{tokens} tokens of {k} rows of {width}"));
        let last = run(&places[(tokens - 1) * k..], &weights[(tokens - 1) * k..]);
        assert_eq!(last, out[(tokens - 1) * width..]);
    }
}

#[test]
fn expert_rows_come_together_by_weight() {
    let mut random = Random(85);
    check_combining::<f32>(&mut random);
    check_combining::<f16>(&mut random);
    check_combining::<bf16>(&mut random);
}
