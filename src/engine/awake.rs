//! Keeps the pool's threads at work between the parallel loops of a step. A step has hundreds of loops with short gaps between them; a
//! thread that falls asleep in a gap costs tens of microseconds to wake. Knows the pool alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long the pool's threads are waited for before work begins without those that have not come.
const PATIENCE: Duration = Duration::from_micros(100);

/// Runs `work` on this thread. Meanwhile the pool's other threads look for work without sleeping; each lets any other thread of the
/// machine go first. A thread that comes only when the work has begun goes again: it may be in the midst of the work itself, which would
/// then wait for its own end. Where several share the pool, a thread in the midst of one's work waits only for work that began later,
/// so none wait in a circle.
pub fn with_pool_awake<R>(work: impl FnOnce() -> R) -> R {
    let (at_work, door, inside) = (Arc::new(()), Arc::new(()), Arc::new(()));
    let home = rayon::current_thread_index();
    let num_others = rayon::current_num_threads() - usize::from(home.is_some());
    let (ended, closed) = (is_gone(&at_work), is_gone(&door));
    rayon::in_place_scope(|scope| {
        let come_in = inside.clone();
        scope.spawn_broadcast(move |_, thread| {
            if Some(thread.index()) == home || closed() {
                return;
            }
            let _inside = come_in.clone();
            while !ended() {
                if rayon::yield_now() != Some(Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        });
        let _dropped_at_the_end = at_work;
        let started = Instant::now();
        // One is held here, and one by the job itself.
        while Arc::strong_count(&inside) < num_others + 2 && started.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        drop(door);
        work()
    })
}

/// Whether the last holder has let it go.
fn is_gone(held: &Arc<()>) -> impl Fn() -> bool + Send + Sync + use<> {
    let held = Arc::downgrade(held);
    move || held.strong_count() == 0
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_runs_once_on_any_pool_and_a_panic_ends_it() {
        for num_threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
            let sum = pool.install(|| {
                with_pool_awake(|| {
                    let (left, right) = rayon::join(|| 1, || with_pool_awake(|| 2));
                    left + right
                })
            });
            assert_eq!(sum, 3);
            let failed = catch_unwind(AssertUnwindSafe(|| pool.install(|| with_pool_awake(|| panic!("meant to")))));
            assert!(failed.is_err());
        }
        assert_eq!(with_pool_awake(|| 4), 4, "outside a pool");
    }

    /// Loops within loops, whose threads look for work while they wait, and several who use one pool.
    #[test]
    fn threads_that_wait_within_the_work_do_not_wait_for_its_end() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        let sum_of_loops = || -> usize {
            let row = |first: usize| (first..first + 8).into_par_iter().map(std::hint::black_box).sum::<usize>();
            (0..4).map(|_| (0..32).into_par_iter().map(row).sum::<usize>()).sum()
        };
        let right = 4 * (0..32).map(|first| (first..first + 8).sum::<usize>()).sum::<usize>();
        let many = || (0..3_000).for_each(|_| assert_eq!(with_pool_awake(sum_of_loops), right));
        std::thread::scope(|scope| {
            scope.spawn(|| pool.install(many));
            scope.spawn(|| pool.install(many));
        });
    }
}
