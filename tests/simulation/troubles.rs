//! The periods in which the daemon cannot keep its promises to the second.

use std::time::Duration;

use crate::clocks::When;

/// The longest delay that still counts as immediate.
pub const PROMPT: Duration = Duration::from_millis(20);

/// A daemon that stalls for less than this still serves every slot.
const WHOLE: Duration = Duration::from_millis(870);

/// The deadline for sending a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    By(When),
    /// The daemon may skip the ping.
    Excused,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    from: When,
    until: When,
    is_loss: bool,
}

#[derive(Debug, Default)]
pub struct Troubles {
    all: Vec<Trouble>,
    last: When,
    deaf_until: When,
}

impl Troubles {
    /// The daemon sends nothing between `from` and `until`, and catches up afterwards.
    pub fn late(&mut self, from: When, until: When) {
        self.last = self.last.max(until);
        match self.all.last_mut() {
            Some(last) if !last.is_loss && from <= last.until + PROMPT => {
                last.until = last.until.max(until);
            }
            _ => self.all.push(Trouble { from, until, is_loss: false }),
        }
    }

    /// The daemon never sends the pings that are due between `from` and `until`.
    pub fn lost(&mut self, from: When, until: When) {
        self.last = self.last.max(until);
        self.all.push(Trouble { from, until, is_loss: true });
    }

    pub fn deaf(&mut self, until: When) {
        self.deaf_until = self.deaf_until.max(until);
    }

    /// The end of the last trouble.
    pub fn last(&self) -> When {
        self.last
    }

    /// A daemon that ends while it is late never sends its overdue pings.
    pub fn end(&mut self, now: When) {
        let is_late = |trouble: &&Trouble| !trouble.is_loss && now <= trouble.until + PROMPT;
        if let Some(from) = self.all.iter().rev().find(is_late).map(|trouble| trouble.from) {
            self.lost(from, now);
        }
    }

    /// Whether the last trouble ended more than five seconds ago.
    pub fn is_calm(&self, now: When) -> bool {
        now > self.last.max(self.deaf_until) + Duration::from_secs(5)
    }

    /// The deadline for a ping that was due at `due`, or up to `shift` earlier or later.
    pub fn look(&self, due: When, shift: Duration) -> Served {
        let within = shift + PROMPT;
        let mut served = due + within;
        // No trouble lasts for more than a few minutes.
        let near = self
            .all
            .iter()
            .rev()
            .take_while(|trouble| trouble.from + Duration::from_secs(3600) > due);
        for trouble in near {
            if due.before(within) > trouble.until || due + within < trouble.from {
                continue;
            }
            if trouble.is_loss || trouble.until.since(trouble.from) >= WHOLE {
                return Served::Excused;
            }
            served = served.max(trouble.until + within);
        }
        Served::By(served)
    }
}
