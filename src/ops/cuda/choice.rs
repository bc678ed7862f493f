//! Which algorithms of a library a product takes for which numbers of rows. A library offers algorithms for one number of rows and may refuse
//! them for another; and each may sum in an order of its own. So algorithms are sought for a ladder of numbers, and those are taken whose
//! results have the same bits: whichever runs, a row is what it is in any batch. Knows algorithms as something that can be asked and tried;
//! knows no library.

use std::collections::HashMap;

use candle_core::Result;

/// Numbers of rows that algorithms are sought for.
const RUNGS: [usize; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];
/// The number whose favourite is tried first as what all others have to agree with: the largest batch that decodes at once.
const FIRST_RUNG: usize = 256;
/// Algorithms with bits of their own that are tried as that.
const MOST_REFERENCES: usize = 3;
/// Rows that must be served at once: in smaller parts the matrix would be read too often.
const LEAST_AT_ONCE: usize = 64;
/// Algorithms that are taken for the same numbers: the second where the first refuses one.
const MOST_TAKEN: usize = 2;
/// Algorithms that are tried for a number before it is left out.
const MOST_TRIED: usize = 10;

/// What is asked of a library about one kind of product.
pub(super) trait Offer<A> {
    /// Algorithms for that many rows, the best first; those that split sums are not among them.
    fn offered(&self, rows: usize) -> Result<Vec<A>>;
    /// Whether it would run with that many rows.
    fn takes(&self, algorithm: &A, rows: usize) -> Result<bool>;
    /// What it says to that many rows.
    fn said(&self, algorithm: &A, rows: usize) -> Result<String>;
    /// What tells the bits of its first rows, the same rows for any number of them; of fewer if there are fewer. `None`: it did not run, or gives
    /// the same rows other bits at another place, or there is no room to try it.
    fn bits(&self, algorithm: &A, rows: usize) -> Result<Option<Vec<u64>>>;
}

/// Algorithms for any number of rows.
#[derive(Debug)]
pub(super) struct Choice<A> {
    /// In growing order, never empty.
    classes: Vec<Class<A>>,
}

#[derive(Debug)]
struct Class<A> {
    /// Tried with these numbers of rows, as far as it takes the smaller one; it does take the larger.
    least_rows: usize,
    most_rows: usize,
    algorithms: Vec<A>,
}

/// A part of a product's rows: its first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<A> {
    /// Rows that it has.
    pub rows: usize,
    /// Rows that it has to be run with, at least as many.
    pub padded_rows: usize,
    pub algorithm: A,
}

impl<A: Copy + PartialEq> Choice<A> {
    /// Chooses; or says why there is nothing to choose.
    pub(super) fn new(offer: &impl Offer<A>) -> Result<std::result::Result<Self, String>> {
        let mut seeker = Seeker { offer, offers: Vec::new(), known: Vec::new(), bits: HashMap::new(), refused: 0 };
        for rows in RUNGS {
            let offered = offer.offered(rows)?.into_iter().map(|algorithm| seeker.index(algorithm)).collect();
            seeker.offers.push(offered);
        }
        seeker.choose()
    }

    /// The first part of that many rows, more than none.
    pub(super) fn part(&self, rows: usize, takes: impl Fn(&A, usize) -> Result<bool>) -> Result<Part<A>> {
        let class = self.classes.iter().position(|class| class.most_rows >= rows).unwrap_or(self.classes.len() - 1);
        let Class { least_rows, most_rows, algorithms } = &self.classes[class];
        for algorithm in algorithms.iter().filter(|_| (*least_rows..=*most_rows).contains(&rows)) {
            if takes(algorithm, rows)? {
                return Ok(Part { rows, padded_rows: rows, algorithm: *algorithm });
            }
        }
        // All rows of a class that is smaller; or, if there is none, those of this one, not all of which are wanted.
        let smaller = if *most_rows < rows { Some(class) } else { class.checked_sub(1) };
        let whole = &self.classes[smaller.unwrap_or(class)];
        Ok(Part { rows: rows.min(whole.most_rows), padded_rows: whole.most_rows, algorithm: whole.algorithms[0] })
    }

    /// Most rows that a part is run with beyond its own.
    pub(super) fn most_padding(&self) -> usize {
        self.classes[0].most_rows - 1
    }
}

struct Seeker<'a, A, O> {
    offer: &'a O,
    /// By rung; numbers in `known`.
    offers: Vec<Vec<usize>>,
    known: Vec<A>,
    /// Of an algorithm with a number of rows.
    bits: HashMap<(usize, usize), Option<Vec<u64>>>,
    refused: usize,
}

impl<A: Copy + PartialEq, O: Offer<A>> Seeker<'_, A, O> {
    fn index(&mut self, algorithm: A) -> usize {
        self.known.iter().position(|known| *known == algorithm).unwrap_or_else(|| {
            self.known.push(algorithm);
            self.known.len() - 1
        })
    }

    /// `None` too if it does not take that many rows.
    fn bits(&mut self, algorithm: usize, rows: usize) -> Result<Option<Vec<u64>>> {
        if let Some(known) = self.bits.get(&(algorithm, rows)) {
            return Ok(known.clone());
        }
        let bits = match self.offer.takes(&self.known[algorithm], rows)? {
            true => self.offer.bits(&self.known[algorithm], rows)?,
            false => {
                self.refused += 1;
                None
            }
        };
        self.bits.insert((algorithm, rows), bits.clone());
        Ok(bits)
    }

    fn choose(mut self) -> Result<std::result::Result<Choice<A>, String>> {
        let first = RUNGS.iter().position(|rows| *rows == FIRST_RUNG).unwrap_or(0);
        let mut best: Vec<Class<usize>> = Vec::new();
        let mut seen: Vec<Vec<u64>> = Vec::new();
        // From the first rung downwards, then upwards: large ones may want more memory than there is.
        'rungs: for rung in (0..=first).rev().chain(first + 1..RUNGS.len()) {
            for candidate in self.offers[rung].clone() {
                let Some(want) = self.bits(candidate, RUNGS[rung])? else { continue };
                if seen.contains(&want) {
                    continue;
                }
                let classes = self.classes(&want)?;
                seen.push(want);
                let is_enough = classes.last().is_some_and(|class| class.most_rows >= LEAST_AT_ONCE);
                if is_enough && classes.len() > best.len() {
                    best = classes;
                }
                if best.len() == RUNGS.len() || seen.len() == MOST_REFERENCES {
                    break 'rungs;
                }
            }
        }
        if best.is_empty() {
            let Self { offer, known, bits, refused, .. } = &self;
            let (offered, tried) = (known.len(), bits.len() - refused);
            let said = match self.offers[first].first() {
                Some(&index) => {
                    format!("; to {FIRST_RUNG} rows the first says {}", offer.said(&known[index], FIRST_RUNG)?)
                }
                None => format!("; none for {FIRST_RUNG} rows"),
            };
            return Ok(Err(format!(
                "{offered} algorithms offered, {refused} times refused, {tried} times tried{said}"
            )));
        }
        let algorithm = |index: usize| self.known[index];
        let classes = best.into_iter().map(|Class { least_rows, most_rows, algorithms }| Class {
            least_rows,
            most_rows,
            algorithms: algorithms.into_iter().map(algorithm).collect(),
        });
        Ok(Ok(Choice { classes: classes.collect() }))
    }

    /// The rungs that have algorithms with these bits.
    fn classes(&mut self, want: &[u64]) -> Result<Vec<Class<usize>>> {
        let mut classes: Vec<Class<usize>> = Vec::new();
        for (rung, &most_rows) in RUNGS.iter().enumerate() {
            let mut candidates = self.offers[rung].clone();
            // What is already taken for fewer rows may do here too.
            let before = classes.iter().rev().flat_map(|class| &class.algorithms).copied();
            candidates.extend(before.filter(|index| !self.offers[rung].contains(index)));
            let mut taken = Vec::new();
            for candidate in candidates.into_iter().take(MOST_TRIED) {
                if taken.len() < MOST_TAKEN && !taken.contains(&candidate) && self.agrees(candidate, rung, want)? {
                    taken.push(candidate);
                }
            }
            if !taken.is_empty() {
                classes.push(Class { least_rows: least(rung), most_rows, algorithms: taken });
            }
        }
        Ok(classes)
    }

    /// With the most rows of a rung, and, where it takes as few, with the fewest.
    fn agrees(&mut self, candidate: usize, rung: usize, want: &[u64]) -> Result<bool> {
        let begins = |bits: Vec<u64>| bits.iter().zip(want).all(|(got, want)| got == want);
        let most = self.bits(candidate, RUNGS[rung])?;
        if !most.is_some_and(begins) {
            return Ok(false);
        }
        let fewest = least(rung);
        let takes_fewest = self.offer.takes(&self.known[candidate], fewest)?;
        Ok(!takes_fewest || self.bits(candidate, fewest)?.is_some_and(begins))
    }
}

/// The least number of rows that belongs to a rung.
fn least(rung: usize) -> usize {
    rung.checked_sub(1).map_or(1, |before| RUNGS[before] + 1)
}
