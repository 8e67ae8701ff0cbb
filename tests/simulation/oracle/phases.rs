//! Checks that each client gets its pings at one phase of the second, which moves only with the number of slots.

use std::time::Duration;

use crate::client::SECOND;
use crate::clocks::When;
use crate::troubles::PROMPT;

/// The longest time between two pings while the daemon serves every slot.
const LONGEST_GAP: Duration = Duration::from_millis(1_070);

/// The longest slot is an eighth of a second.
pub const LONGEST_MOVE: Duration = Duration::from_millis(125);

/// How long after the time that its last phase suggests a ping can come.
pub const LATEST: Duration = LONGEST_MOVE.saturating_add(PROMPT);

/// When a ping was due, and the number of slots in that second.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub at: When,
    pub slots: u16,
}

/// What is known about the number of slots in a second.
#[derive(Debug, Default)]
pub struct Phases {
    slots: u16,
    /// When it last changed.
    moved: When,
    /// When it last fell.
    merged: When,
    /// When a daemon last started after a crash.
    crashed: When,
}

impl Phases {
    /// Records the number of slots. Returns whether it changed.
    pub fn follow(&mut self, due: Due) -> bool {
        let has_changed = due.slots != self.slots;
        if has_changed {
            self.moved = self.moved.max(due.at);
            if due.slots < self.slots {
                self.merged = self.merged.max(due.at);
            }
            self.slots = due.slots;
        }
        has_changed
    }

    /// Records that a daemon starts after a crash. It knows the number of slots of the last snapshot only.
    pub fn restart_after_crash(&mut self, now: When) {
        self.crashed = now;
    }

    /// How far a phase may have moved since `since`.
    pub fn shift(&self, since: When) -> Duration {
        if since <= self.moved { LONGEST_MOVE } else { Duration::ZERO }
    }

    /// How far a phase may have moved forward since `since`.
    pub fn delay(&self, since: When) -> Duration {
        if since <= self.merged { LONGEST_MOVE } else { Duration::ZERO }
    }

    /// Returns the error in a ping that was due at `due`, if any. The one before was due at `last`.
    pub fn check(&self, last: When, due: When, is_calm: bool) -> Option<&'static str> {
        let (gap, shift) = (due.since(last), self.shift(last));
        let fraction = Duration::from_nanos(gap.subsec_nanos().into());
        let may_repeat = shift > Duration::ZERO && last < self.crashed;
        if gap + shift < SECOND && !may_repeat {
            Some("pinged twice in a second")
        } else if fraction.min(SECOND.saturating_sub(fraction)) > shift {
            Some("pinged at a different phase of the second")
        } else if is_calm && gap > LONGEST_GAP && gap < SECOND * 3 / 2 {
            Some("pinged after too long a gap")
        } else {
            None
        }
    }
}
