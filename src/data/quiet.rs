//! Catches a panic of code that is not ours without its message on stderr, which would read as a bug of this program.
//! Knows panics only; does not know what was tried. Panics of other threads, and of ours outside, print as ever.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `Err` if it panicked. What `work` borrowed may then be half changed and must not be used further.
pub(crate) fn catch_quietly<T>(work: impl FnOnce() -> T) -> Result<T, ()> {
    static HOOK: Once = Once::new();
    // Once and for good: taking the hook out and putting it back for each call would race with other threads' panics.
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                before(panic);
            }
        }));
    });
    let outer = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(outer);
    result.map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_leaves_the_thread_as_it_was() {
        assert_eq!(catch_quietly(|| 1), Ok(1));
        let inner = catch_quietly(|| {
            let nested: Result<(), ()> = catch_quietly(|| panic!("not shown"));
            assert_eq!(nested, Err(()));
            assert!(IS_QUIET.get(), "still inside the outer call");
            2
        });
        assert_eq!(inner, Ok(2));
        assert!(!IS_QUIET.get());
    }
}
