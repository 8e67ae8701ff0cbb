//! Receives the pings of the clients that are measured, and judges each by the kernel's time.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::crowd::Crowd;
use super::run::{Plan, Progress};
use crate::clock::Time;
use crate::tally::{Arrival, Tally};
use crate::wire::PERIOD;

/// A ping whose period is longer than a second by more than this is late, and out of time is one
/// whose period is as much shorter too.
pub(super) const LATE: Duration = Duration::from_millis(100);

/// Longer times are recorded as this.
const LONGEST_NANOS: u64 = 600_000_000_000;

/// What a second of the measurement brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    pub(super) delivered: u64,
    pub(super) late: u64,
    pub(super) worst_deviation: Duration,
}

/// What came to the measured clients.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) delivered: u64,
    pub(super) late: u64,
    pub(super) missed: u64,
    pub(super) duplicated: u64,
    /// Datagrams that were no pings of this daemon.
    pub(super) strange: u64,
    /// Of each period from a second, in nanoseconds.
    pub(super) deviations: Histogram<u64>,
    /// From each client's first heartbeat, in nanoseconds.
    pub(super) first_pings: Histogram<u64>,
    pub(super) never_pinged: u64,
    /// Of the client that got the fewest and of the one that got the most, without duplicates.
    pub(super) fewest: u64,
    pub(super) most: u64,
    pub(super) seconds: Vec<Second>,
    pub(super) halving: Option<Halving>,
}

/// What followed when half of the clients had fallen silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halving {
    /// How long those were pinged still.
    pub(super) pinged_on: Duration,
    /// From then on, how long pings still came out of time; nobody knows if it went on to the end.
    pub(super) recovered_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    tally: Tally,
    was_pinged: bool,
}

struct Ear<'a> {
    crowd: &'a Crowd,
    plan: &'a Plan,
    progress: &'a Progress,
    clients: Vec<Client>,
    heard: Heard,
    /// When one that had fallen silent was last pinged.
    pinged_on_until: Option<Time>,
    /// When a ping last came out of time.
    out_of_time_at: Option<Time>,
}

/// Listens until told to stop.
pub(super) fn listen(crowd: &Crowd, plan: &Plan, progress: &Progress) -> io::Result<Heard> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for (index, socket) in crowd.sockets().iter().enumerate() {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let mut ear = Ear {
        crowd,
        plan,
        progress,
        clients: vec![Client::default(); crowd.measured() as usize],
        heard: Heard::new(plan),
        pinged_on_until: None,
        out_of_time_at: None,
    };
    let mut events = [EpollEvent::empty(); 64];
    while !progress.is_over.load(Relaxed) {
        let ready = match epoll.wait(&mut events, 100_u16) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            ear.drain(usize::try_from(event.data()).unwrap_or_default())?;
        }
    }
    Ok(ear.finish())
}

impl Ear<'_> {
    fn drain(&mut self, socket: usize) -> io::Result<()> {
        let mut received = Vec::new();
        loop {
            received.clear();
            let may_be_more =
                match super::socket::receive(&self.crowd.sockets()[socket], &mut received) {
                    // What a closed port of the daemon's machine causes; then nothing comes.
                    Err(Errno::EAGAIN | Errno::ECONNREFUSED) => return Ok(()),
                    result => result?,
                };
            for datagram in &received {
                let is_from_the_daemon =
                    datagram.is_ping && datagram.source == Some(self.crowd.server);
                match self.crowd.recipient(socket, datagram) {
                    Some(client) if is_from_the_daemon => self.ping(client, datagram.at),
                    _ => self.heard.strange += 1,
                }
            }
            if !may_be_more {
                return Ok(());
            }
        }
    }

    fn ping(&mut self, position: usize, at: Time) {
        let client = &mut self.clients[position];
        if !client.was_pinged {
            client.was_pinged = true;
            let registered_at = self.progress.registered_at[position].load(Relaxed);
            let wait = at.since(Time::from_nanos(registered_at));
            self.heard.first_pings.saturating_record(nanos(wait));
        }
        let (start, end) = self.window(position);
        if at < start {
            self.clients[position].tally.restart(at);
        } else if at < end {
            self.measure(position, at, start);
        } else if self.plan.leaves(position) {
            self.pinged_on_until = Some(at);
        }
    }

    /// From when to when a client is measured.
    fn window(&self, position: usize) -> (Time, Time) {
        let time = |nanos: &std::sync::atomic::AtomicU64| Time::from_nanos(nanos.load(Relaxed));
        let (start, mut end) = (time(&self.progress.start), time(&self.progress.end));
        if self.plan.leaves(position) {
            end = end.min(time(&self.progress.left_at));
        }
        (start, end)
    }

    fn measure(&mut self, position: usize, at: Time, start: Time) {
        let Heard { delivered, late, missed, deviations, seconds, .. } = &mut self.heard;
        let second = usize::try_from(at.since(start).as_secs()).unwrap_or(usize::MAX);
        let Some(second) = seconds.get_mut(second) else { return };
        *delivered += 1;
        second.delivered += 1;
        match self.clients[position].tally.ping(at) {
            Arrival::First => *missed += at.since(start).as_secs(),
            Arrival::Next { deviation, missed: missed_before, .. } => {
                let lateness = Duration::try_from_secs_f64(deviation).unwrap_or_default();
                if lateness > LATE {
                    *late += 1;
                    second.late += 1;
                }
                let deviation = Duration::try_from_secs_f64(deviation.abs()).unwrap_or_default();
                if deviation > LATE || missed_before > 0 {
                    self.out_of_time_at = Some(at);
                }
                deviations.saturating_record(nanos(deviation));
                second.worst_deviation = second.worst_deviation.max(deviation);
            }
            Arrival::Duplicate { .. } => self.out_of_time_at = Some(at),
        }
    }

    fn finish(mut self) -> Heard {
        let (mut fewest, mut most) = (u64::MAX, 0);
        for position in 0..self.clients.len() {
            let (start, end) = self.window(position);
            let Client { mut tally, was_pinged } = self.clients[position];
            self.heard.never_pinged += u64::from(!was_pinged);
            if tally.last().is_none() {
                self.heard.missed += end.since(start).as_secs();
            }
            tally.end(end);
            self.heard.missed += tally.missed();
            self.heard.duplicated += tally.duplicated();
            if !self.plan.leaves(position) {
                let received = tally.received() - tally.duplicated();
                (fewest, most) = (fewest.min(received), most.max(received));
            }
        }
        (self.heard.fewest, self.heard.most) = (fewest.min(most), most);
        self.heard.halving = self.plan.halve_after.map(|_| self.halving());
        self.heard
    }

    fn halving(&self) -> Halving {
        let left_at = Time::from_nanos(self.progress.left_at.load(Relaxed));
        let end = Time::from_nanos(self.progress.end.load(Relaxed));
        let halved_at = self.pinged_on_until.unwrap_or(left_at);
        let out_of_time_at = self.out_of_time_at.unwrap_or(halved_at);
        let is_settled = end.since(halved_at.max(out_of_time_at)) > 2 * PERIOD;
        Halving {
            pinged_on: halved_at.since(left_at),
            recovered_in: is_settled.then(|| out_of_time_at.since(halved_at)),
        }
    }
}

impl Heard {
    fn new(plan: &Plan) -> Self {
        let seconds = plan.length.as_secs().div_ceil(PERIOD.as_secs());
        Self {
            delivered: 0,
            late: 0,
            missed: 0,
            duplicated: 0,
            strange: 0,
            deviations: histogram(),
            first_pings: histogram(),
            never_pinged: 0,
            fewest: 0,
            most: 0,
            seconds: vec![Second::default(); usize::try_from(seconds).unwrap_or_default()],
            halving: None,
        }
    }
}

/// A histogram of times, in nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NANOS, 3).expect("the bounds are in order")
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
