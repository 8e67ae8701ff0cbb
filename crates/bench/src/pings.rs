//! Receives the pings of the measured clients and judges each by the kernel's receive timestamp.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use wakeupd::clock::{self, Time};
use wakeupd::ping_stats::{Arrival, PingStats};
use wakeupd_protocol::PERIOD;

use crate::churn::{REST, TOLERANCE};
use crate::crowd::Crowd;
use crate::histogram::{histogram, nanos};
use crate::plan::{Plan, Progress};
use crate::restart::{Gaps, Pinged};

/// A ping is late if it comes later than a second after the previous ping by more than this time. It is out
/// of time if it comes later or earlier by more than this time.
pub(crate) const LATE: Duration = Duration::from_millis(100);

/// A change in the measured part of the crowd.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A client is about to send its first heartbeat.
    Came { client: u32, at: Time },
    /// A client has sent its last heartbeat.
    Left { client: u32, last_heartbeat: Time },
}

/// The pings in one step of the timeline.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    pub(crate) delivered: u64,
    pub(crate) late: u64,
    pub(crate) worst_deviation: Duration,
}

/// The pings that reached the measured clients.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) delivered: u64,
    pub(crate) late: u64,
    pub(crate) missed: u64,
    pub(crate) duplicated: u64,
    /// Datagrams that are not pings of this daemon.
    pub(crate) strange: u64,
    /// Absolute deviation of each period from one second, in nanoseconds.
    pub(crate) deviations: Histogram<u64>,
    /// Time from each client's first heartbeat to its first ping, in nanoseconds.
    pub(crate) first_pings: Histogram<u64>,
    pub(crate) never_pinged: u64,
    /// Pings to clients that had already expired.
    pub(crate) overdue: u64,
    pub(crate) worst_overrun: Duration,
    /// The smallest and the largest number of pings to one client, without duplicates. Only clients present
    /// for the whole measurement count.
    pub(crate) fewest: u64,
    pub(crate) most: u64,
    pub(crate) timeline: Vec<Step>,
    pub(crate) halving: Option<Halving>,
    pub(crate) gaps: Option<Gaps>,
}

/// How the daemon recovered after half of the clients fell silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Halving {
    /// How long the daemon kept pinging the silent clients.
    pub(crate) pinged_on: Duration,
    /// How long pings then continued to come out of time. `None` if the run ended before all pings were
    /// punctual.
    pub(crate) recovered_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    /// The wall-clock time of the client's first heartbeat.
    came: Time,
    /// When the client expires. `None` while it still sends heartbeats.
    expires: Option<Time>,
    /// True for the clients that fall silent with `--halve-after`.
    leaves: bool,
    was_pinged: bool,
    stats: PingStats,
    pinged: Pinged,
}

struct Ear<'a> {
    crowd: &'a Crowd,
    plan: &'a Plan,
    progress: &'a Progress,
    /// Clients by number, for as long as pings can still reach them.
    clients: HashMap<u32, Client>,
    /// Clients that have left, each with the time at which its entry is removed from `clients`.
    leavers: VecDeque<(Time, u32)>,
    heard: Heard,
    /// The effect of a restart on the order of the pings.
    gaps: Gaps,
    /// The fewest and the most pings to one client.
    range: Option<(u64, u64)>,
    /// The last ping to a client that had fallen silent.
    pinged_on_until: Option<Time>,
    /// The last ping that came out of time.
    out_of_time_at: Option<Time>,
}

/// Receives pings until [`Progress::is_over`] is set.
pub(crate) fn listen(
    crowd: &Crowd,
    plan: &Plan,
    progress: &Progress,
    events: &Receiver<Event>,
) -> io::Result<Heard> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, socket) in crowd.sockets().iter().enumerate() {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let mut ear = Ear {
        crowd,
        plan,
        progress,
        clients: HashMap::with_capacity(crowd.measured() as usize),
        leavers: VecDeque::new(),
        heard: Heard::new(plan),
        gaps: Gaps::default(),
        range: None,
        pinged_on_until: None,
        out_of_time_at: None,
    };
    let mut ready = [EpollEvent::empty(); 64];
    while !progress.is_over.load(Relaxed) {
        let count = match epoll.wait(&mut ready, 100_u16) {
            Err(Errno::EINTR) => continue,
            count => count?,
        };
        for event in &ready[..count] {
            ear.drain(usize::try_from(event.data()).unwrap_or_default(), events)?;
        }
        ear.learn(events);
        ear.forget(clock::wall());
    }
    Ok(ear.finish())
}

impl Ear<'_> {
    /// Applies the queued events. The sender queues a client's event before it sends the first heartbeat, so no
    /// ping can arrive before its client is known.
    fn learn(&mut self, events: &Receiver<Event>) {
        for event in events.try_iter() {
            match event {
                Event::Came { client: number, at } => {
                    let position = self.crowd.position(number);
                    let leaves = position.is_some_and(|position| self.plan.leaves(position));
                    let (stats, pinged) = Default::default();
                    let (was_pinged, expires) = (false, None);
                    let client = Client { came: at, expires, leaves, was_pinged, stats, pinged };
                    if let Some(former) = self.clients.insert(number, client) {
                        self.conclude(&former);
                    }
                }
                Event::Left { client: number, last_heartbeat } => {
                    let Some(churn) = self.plan.churn else { continue };
                    let expires = last_heartbeat + churn.expiration;
                    if let Some(client) = self.clients.get_mut(&number) {
                        client.expires = Some(expires);
                    }
                    self.leavers.push_back((expires + REST / 2, number));
                }
            }
        }
    }

    /// Drops the clients that left long ago.
    fn forget(&mut self, now: Time) {
        while self.leavers.front().is_some_and(|(until, _)| *until < now) {
            let leaver = self.leavers.pop_front();
            if let Some(client) = leaver.and_then(|(_, number)| self.clients.remove(&number)) {
                self.conclude(&client);
            }
        }
    }

    fn drain(&mut self, socket: usize, events: &Receiver<Event>) -> io::Result<()> {
        let mut received = Vec::new();
        loop {
            received.clear();
            let may_be_more =
                match crate::socket::receive(&self.crowd.sockets()[socket], &mut received) {
                    // ICMP port unreachable from the daemon's machine. Nothing else is waiting.
                    Err(Errno::EAGAIN | Errno::ECONNREFUSED) => return Ok(()),
                    result => result?,
                };
            self.learn(events);
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

    fn ping(&mut self, number: u32, at: Time) {
        let Some(mut client) = self.clients.get(&number).copied() else {
            // With churn, an unknown client is one that expired long ago.
            let is_forgotten = self.plan.churn.is_some();
            *if is_forgotten { &mut self.heard.overdue } else { &mut self.heard.strange } += 1;
            return;
        };
        if !client.was_pinged {
            client.was_pinged = true;
            self.heard.first_pings.saturating_record(nanos(at.since(client.came)));
        }
        if let Some(expires) = client.expires.filter(|expires| at > *expires + TOLERANCE) {
            self.heard.overdue += 1;
            self.heard.worst_overrun = self.heard.worst_overrun.max(at.since(expires));
        }
        let (start, end) = self.window(&client);
        let ended_at = Time::from_nanos(self.progress.ended_at.load(Relaxed));
        let missed_before = client.stats.missed();
        if at < start {
            client.stats.restart(at);
        } else if at < end {
            self.measure(&mut client, at, start);
        } else if client.leaves {
            self.pinged_on_until = Some(at);
        }
        if at < end {
            let missed = (missed_before, client.stats.missed());
            client.pinged.ping(at, ended_at, missed, &mut self.gaps);
        }
        self.clients.insert(number, client);
    }

    /// The start and the end of the time in which pings to this client count.
    fn window(&self, client: &Client) -> (Time, Time) {
        let time = |nanos: &std::sync::atomic::AtomicU64| Time::from_nanos(nanos.load(Relaxed));
        let (start, mut end) = (time(&self.progress.start), time(&self.progress.end));
        if client.leaves {
            end = end.min(time(&self.progress.left_at));
        }
        (start.max(client.came), client.expires.map_or(end, |expires| end.min(expires)))
    }

    /// Judges a ping by the time since the previous ping.
    fn measure(&mut self, client: &mut Client, at: Time, start: Time) {
        let Heard { delivered, late, missed, deviations, timeline, .. } = &mut self.heard;
        let measured_for = at.since(Time::from_nanos(self.progress.start.load(Relaxed)));
        let step = measured_for.as_secs() / self.plan.timeline_step().as_secs();
        let Some(step) = usize::try_from(step).ok().and_then(|step| timeline.get_mut(step)) else {
            return;
        };
        *delivered += 1;
        step.delivered += 1;
        match client.stats.ping(at) {
            Arrival::First => *missed += due_before_the_first(client, start, at),
            Arrival::Next { deviation, missed: missed_before, .. } => {
                let lateness = Duration::try_from_secs_f64(deviation).unwrap_or_default();
                if lateness > LATE {
                    *late += 1;
                    step.late += 1;
                }
                let deviation = Duration::try_from_secs_f64(deviation.abs()).unwrap_or_default();
                if deviation > LATE || missed_before > 0 {
                    self.out_of_time_at = Some(at);
                }
                deviations.saturating_record(nanos(deviation));
                step.worst_deviation = step.worst_deviation.max(deviation);
            }
            Arrival::Duplicate { .. } => self.out_of_time_at = Some(at),
        }
    }

    /// Adds up the figures of a client that can receive no more pings.
    fn conclude(&mut self, client: &Client) {
        let (start, end) = self.window(client);
        client.pinged.conclude(&mut self.gaps);
        // A client that stayed for less than a period may not have had a slot.
        let had_time = end.since(client.came) > PERIOD + LATE;
        self.heard.never_pinged += u64::from(!client.was_pinged && had_time);
        if end <= start {
            return;
        }
        let mut stats = client.stats;
        if stats.last().is_none() {
            self.heard.missed += due_before_the_first(client, start, end);
        }
        stats.end(end);
        self.heard.missed += stats.missed();
        self.heard.duplicated += stats.duplicated();
        let was_always_there = client.came < start && client.expires.is_none() && !client.leaves;
        if was_always_there {
            let received = stats.received() - stats.duplicated();
            let (fewest, most) = self.range.unwrap_or((received, received));
            self.range = Some((fewest.min(received), most.max(received)));
        }
    }

    fn finish(mut self) -> Heard {
        for client in std::mem::take(&mut self.clients).into_values() {
            self.conclude(&client);
        }
        (self.heard.fewest, self.heard.most) = self.range.unwrap_or_default();
        self.heard.halving = self.plan.halve_after.map(|_| self.halving());
        self.heard.gaps = self.plan.restart.map(|_| self.gaps);
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
        let steps = plan.length.as_secs().div_ceil(plan.timeline_step().as_secs());
        Self {
            delivered: 0,
            late: 0,
            missed: 0,
            duplicated: 0,
            strange: 0,
            deviations: histogram(),
            first_pings: histogram(),
            never_pinged: 0,
            overdue: 0,
            worst_overrun: Duration::ZERO,
            fewest: 0,
            most: 0,
            timeline: vec![Step::default(); usize::try_from(steps).unwrap_or_default()],
            halving: None,
            gaps: None,
        }
    }
}

/// How many pings were due to a client until `now` if none arrived, counted from the `start` of its window.
/// A client that registers later is due its first ping within a second.
fn due_before_the_first(client: &Client, start: Time, now: Time) -> u64 {
    if client.came < start {
        now.since(start).as_secs()
    } else {
        (now.since(start) + PERIOD / 2).as_secs().saturating_sub(1)
    }
}
