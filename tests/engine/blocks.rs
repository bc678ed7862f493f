//! The block manager as a program over integers, against a model that is nothing but lists.

use std::collections::{BTreeMap, VecDeque};

use pairwright::engine::block_manager::{BlockHash, BlockId, BlockManager};
use proptest::prelude::*;

const SIZE: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Allocate,
    /// Publish the last block of a table as these tokens after nothing.
    Publish {
        table: usize,
        tokens: [u32; SIZE],
    },
    /// Look up tokens, and share what is found.
    Find {
        tokens: [u32; SIZE],
    },
    Extend {
        table: usize,
    },
    Release {
        table: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let tokens = prop::array::uniform3(0u32..3);
    prop_oneof![
        3 => Just(Step::Allocate),
        3 => (0usize..8, tokens.clone()).prop_map(|(table, tokens)| Step::Publish { table, tokens }),
        3 => tokens.prop_map(|tokens| Step::Find { tokens }),
        2 => (0usize..8).prop_map(|table| Step::Extend { table }),
        3 => (0usize..8).prop_map(|table| Step::Release { table }),
    ]
}

/// What the manager must do, in lists.
struct Model {
    free: VecDeque<BlockId>,
    contents: BTreeMap<BlockId, [u32; SIZE]>,
    tables: Vec<Vec<BlockId>>,
}

impl Model {
    fn allocate(&mut self, manager: &mut BlockManager) -> Option<BlockId> {
        let got = manager.allocate();
        assert_eq!(got, self.free.pop_front(), "one that cannot be found, or that was free longest");
        got.iter().for_each(|id| _ = self.contents.remove(id));
        got
    }

    fn run(&mut self, manager: &mut BlockManager, step: Step) {
        let hash = |tokens: &[u32; SIZE]| BlockManager::hash(None, tokens, SIZE);
        let num_tables = self.tables.len();
        match step {
            Step::Allocate => {
                let got = self.allocate(manager);
                self.tables.extend(got.map(|id| vec![id]));
            }
            Step::Extend { table } if num_tables > 0 => {
                let got = self.allocate(manager);
                self.tables[table % num_tables].extend(got);
            }
            Step::Publish { table, tokens } if num_tables > 0 => {
                let id = *self.tables[table % num_tables].last().unwrap();
                manager.publish(id, hash(&tokens), &tokens);
                if !self.contents.values().any(|held| *held == tokens) {
                    self.contents.entry(id).or_insert(tokens);
                }
            }
            Step::Find { tokens } => {
                let found = manager.find(hash(&tokens), &tokens);
                let want = self.contents.iter().find(|(_, held)| **held == tokens).map(|(&id, _)| id);
                assert_eq!(found, want);
                if let Some(id) = found {
                    assert_eq!(manager.is_free(id), self.free.contains(&id));
                    manager.share(id);
                    self.free.retain(|&other| other != id);
                    self.tables.push(vec![id]);
                }
            }
            Step::Release { table } if num_tables > 0 => {
                let table = self.tables.swap_remove(table % num_tables);
                manager.release(&table);
                let held = |id: &BlockId| self.tables.iter().any(|other| other.contains(id));
                for id in table.iter().rev().filter(|id| !held(id)) {
                    match self.contents.contains_key(id) {
                        true => self.free.push_back(*id),
                        false => self.free.push_front(*id),
                    }
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_manager_does_what_the_lists_do(num_blocks in 1usize..9, steps in prop::collection::vec(step(), 1..120)) {
        let mut manager = BlockManager::new(num_blocks, SIZE);
        let free = (0..num_blocks as BlockId).collect();
        let mut model = Model { free, contents: BTreeMap::new(), tables: Vec::new() };
        for step in steps {
            model.run(&mut manager, step);
            prop_assert_eq!(manager.num_free(), model.free.len());
            for id in 0..num_blocks as BlockId {
                prop_assert_eq!(manager.is_free(id), model.free.contains(&id));
            }
        }
        for table in std::mem::take(&mut model.tables) {
            manager.release(&table);
        }
        prop_assert_eq!(manager.num_free(), manager.num_blocks());
    }

    #[test]
    fn hashes_tell_blocks_and_their_pasts_apart(a in prop::collection::vec(0u32..4, 1..6), b in prop::collection::vec(0u32..4, 1..6)) {
        let chain = |blocks: &[&[u32]]| {
            blocks.iter().fold(None, |parent: Option<BlockHash>, tokens| Some(BlockManager::hash(parent, tokens, tokens.len())))
        };
        prop_assert_eq!(chain(&[&a]) == chain(&[&b]), a == b);
        prop_assert_eq!(chain(&[&a, &b]) == chain(&[&b, &a]), a == b);
        prop_assert_ne!(chain(&[&a]), chain(&[&a, &a]));
        let joined = [&a[..], &b[..]].concat();
        prop_assert_ne!(chain(&[&a, &b]), chain(&[&joined]));
        prop_assert_ne!(chain(&[&a]), Some(BlockManager::hash(None, &a, a.len() - 1)), "a generated token is not a prompt's");
    }
}

#[test]
fn a_hash_that_belongs_to_other_tokens_finds_nothing() {
    let mut manager = BlockManager::new(2, SIZE);
    let id = manager.allocate().unwrap();
    let hash = BlockManager::hash(None, &[1, 2, 3], 3);
    manager.publish(id, hash, &[1, 2, 3]);
    assert_eq!(manager.find(hash, &[1, 2, 3]), Some(id));
    assert_eq!(manager.find(hash, &[1, 2, 4]), None, "a collision is not a hit");
    assert_eq!(manager.find(hash ^ 1, &[1, 2, 3]), None);
    assert_eq!((manager.block_size(), manager.num_blocks(), manager.num_free()), (3, 2, 1));
}
