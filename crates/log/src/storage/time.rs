//! Time, as it is told from outside: tests set it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailmark_record::Timestamp;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Tells how much time has passed since some moment: it never jumps, whatever happens to the clock.
pub type Elapsed = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Time that passes, from now on.
pub(crate) fn since_now() -> Elapsed {
    let begun = Instant::now();
    Arc::new(move || begun.elapsed())
}

/// The wall clock and time that passes.
#[derive(Clone)]
pub struct Clocks {
    /// The wall clock; may jump either way.
    pub wall: Clock,
    /// Time that passes.
    pub elapsed: Elapsed,
}

impl Default for Clocks {
    fn default() -> Self {
        Clocks { wall: Arc::new(Timestamp::now), elapsed: since_now() }
    }
}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clocks").finish_non_exhaustive()
    }
}
