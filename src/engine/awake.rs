//! Keeps the pool's threads at work between the parallel loops of a step. A step has hundreds of loops with short gaps between them; a
//! thread that falls asleep in a gap costs tens of microseconds to wake. Knows the pool alone.

use std::sync::Arc;

use rayon::Yield;

/// Runs `work` on this thread. Meanwhile the pool's other threads look for work without sleeping; each lets any other thread of the
/// machine go first.
pub fn with_pool_awake<R>(work: impl FnOnce() -> R) -> R {
    let at_work = Arc::new(());
    let ended = {
        let at_work = Arc::downgrade(&at_work);
        move || at_work.strong_count() == 0
    };
    let home = rayon::current_thread_index();
    rayon::in_place_scope(|scope| {
        scope.spawn_broadcast(|_, thread| {
            // This thread's own turn comes when the work has ended, or in the midst of it, which must not wait for itself.
            while Some(thread.index()) != home && !ended() {
                if rayon::yield_now() != Some(Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        });
        let _dropped_at_the_end = at_work;
        work()
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

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
}
