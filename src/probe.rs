//! `wakeupd probe`: a client in the manner of `ping(8)` that prints each ping.

mod summary;

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wakeupd_protocol::{HEARTBEAT, PERIOD, PING};

use crate::cli::options::ProbeOptions;
use crate::cli::values::{Family, Resolved, Target};
use crate::clock::{self, Time};
use crate::output::{self, counted, printable};
use crate::ping_stats::{Arrival, PingStats};
use crate::throttle::Throttle;
use summary::Summary;

const COMMAND: &str = "wakeupd probe";

/// How long to wait for the last of `--count` pings after it was due.
const GRACE: Duration = Duration::from_secs(5);

/// Seconds between two lines that report silence.
const SILENCE_INTERVAL: u64 = 10;

/// Sends heartbeats and prints the pings until the limit is reached or SIGINT arrives. The exit code is 0 if a
/// ping arrived, else 1.
#[must_use]
pub fn run(options: &ProbeOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let probed = runtime.and_then(|runtime| runtime.block_on(probe(options)));
    probed.unwrap_or_else(|error| output::fail(COMMAND, printable(&error.to_string())))
}

async fn probe(options: &ProbeOptions) -> io::Result<ExitCode> {
    let family = match (options.ipv4, options.ipv6) {
        (true, _) => Family::Ipv4,
        (_, true) => Family::Ipv6,
        _ => Family::Any,
    };
    let resolved = options.target.resolve(family).await?;
    let address = resolved.address;
    let connected = Probe::connect(address).await;
    let mut probe = connected.map_err(|error| unconnected(&options.target, address, &error))?;
    let printed = probe.run(options, &resolved).await;
    let code = ExitCode::from(u8::from(probe.stats.received() == 0));
    Ok(output::end(COMMAND, code, printed))
}

struct Probe {
    socket: UdpSocket,
    stats: PingStats,
    /// The absolute deviation of each gap between pings from the whole seconds that were due, in seconds.
    deviations: Vec<f64>,
    first_heartbeat: Time,
    last_sign_of_life: Time,
    /// Datagrams that are not pings.
    ignored: u64,
    /// Limits the lines about duplicates to one a second, because the peer can send at any rate.
    duplicate_lines: Throttle,
    ignored_lines: Throttle,
    /// The last error since the last ping.
    trouble: Option<io::ErrorKind>,
}

impl Probe {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        let now = clock::now();
        Ok(Self {
            socket,
            stats: PingStats::default(),
            deviations: Vec::new(),
            first_heartbeat: now,
            last_sign_of_life: now,
            ignored: 0,
            duplicate_lines: Throttle::default(),
            ignored_lines: Throttle::default(),
            trouble: None,
        })
    }

    async fn run(&mut self, options: &ProbeOptions, resolved: &Resolved) -> io::Result<()> {
        let (target, address) = (&options.target, resolved.address);
        print(format_args!(
            "PROBE {target} ({address}) from {}: heartbeat every {}, ping due every second",
            self.socket.local_addr()?,
            humantime::format_duration(options.every),
        ))?;
        self.listen(options).await?;
        self.stats.end(clock::now());
        print(format_args!("--- {target} ({address}) ---\n{}", self.summary()))?;
        if self.ignored > 0 {
            print(format_args!(
                "{} ignored",
                counted(self.ignored, "other datagram", "other datagrams")
            ))?;
        }
        if self.stats.received() == 0 {
            print(self.hint(resolved))?;
        }
        Ok(())
    }

    async fn listen(&mut self, options: &ProbeOptions) -> io::Result<()> {
        let count = options.count.unwrap_or(u32::MAX);
        let patience = options.count.map(|count| PERIOD * count + GRACE);
        let limit = [options.length, patience].into_iter().flatten().min();
        let end = limit.map(|limit| Instant::now() + limit);
        let mut next_heartbeat = Instant::now();
        let mut silence = interval(PERIOD);
        silence.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut buffer = [0; 2048];
        while self.stats.received() < u64::from(count) {
            tokio::select! {
                received = self.socket.recv(&mut buffer) => match received {
                    Ok(length) => self.receive(&buffer[..length])?,
                    Err(error) => self.tell_trouble(&error)?,
                },
                () = sleep_until(next_heartbeat) => {
                    if let Err(error) = self.socket.send(&HEARTBEAT).await {
                        self.tell_trouble(&error)?;
                    }
                    let is_heard = self.stats.received() > 0;
                    next_heartbeat += if is_heard { options.every } else { PERIOD };
                }
                _ = silence.tick() => self.tell_silence()?,
                () = sleep_until(end.unwrap_or(next_heartbeat)), if end.is_some() => break,
                interrupted = &mut interrupt => {
                    if io::stdout().is_terminal() {
                        // The terminal shows ^C, so the output continues on a new line.
                        print("")?;
                    }
                    return interrupted;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, payload: &[u8]) -> io::Result<()> {
        let now = clock::now();
        if !payload.starts_with(&PING) {
            self.ignored += 1;
            let Some(suppressed) = self.ignored_lines.pass(now) else { return Ok(()) };
            let (bytes, others) =
                (counted(payload.len() as u64, "byte", "bytes"), others(suppressed));
            return print(format_args!("ignored a datagram of {bytes}: not a ping{others}"));
        }
        self.last_sign_of_life = now;
        let arrival = self.stats.ping(now);
        if !matches!(arrival, Arrival::Duplicate { .. }) {
            self.trouble = None;
        }
        let number = self.stats.received();
        match arrival {
            Arrival::First => {
                let wait = now.since(self.first_heartbeat).as_secs_f64();
                print(format_args!("ping {number}: {wait:.3} s after the first heartbeat"))
            }
            Arrival::Next { gap, missed, deviation } => {
                self.deviations.push(deviation.abs());
                let missed = match missed {
                    0 => String::new(),
                    missed => format!(", {missed} missed before it"),
                };
                let (gap, deviation) = (gap.as_secs_f64(), deviation * 1e3);
                print(format_args!(
                    "ping {number}: {gap:.3} s after the last ({deviation:+.1} ms){missed}"
                ))
            }
            Arrival::Duplicate { gap } => {
                let Some(suppressed) = self.duplicate_lines.pass(now) else { return Ok(()) };
                let (gap, others) = (gap.as_secs_f64(), others(suppressed));
                print(format_args!("ping {number}: {gap:.3} s after the last, a duplicate{others}"))
            }
        }
    }

    /// Reports an error, unless it is of the same kind as the last one.
    fn tell_trouble(&mut self, error: &io::Error) -> io::Result<()> {
        if self.trouble.replace(error.kind()) == Some(error.kind()) {
            return Ok(());
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => print("refused: nothing listens on this port"),
            _ => print(format_args!("socket error: {error}")),
        }
    }

    fn tell_silence(&self) -> io::Result<()> {
        match clock::now().since(self.last_sign_of_life).as_secs() {
            0 => Ok(()),
            seconds if seconds == 3 || seconds.is_multiple_of(SILENCE_INTERVAL) => {
                print(format_args!("no ping for {seconds} s"))
            }
            _ => Ok(()),
        }
    }

    fn summary(&self) -> Summary<'_> {
        Summary { stats: &self.stats, deviations: &self.deviations }
    }

    /// Advice for a probe that received no ping.
    fn hint(&self, resolved: &Resolved) -> String {
        let address = resolved.address;
        let port = address.port();
        let hint = match self.trouble {
            Some(io::ErrorKind::ConnectionRefused) => format!(
                "Nothing listens on UDP port {port} of {}. Check that wakeupd runs on that machine with PORT={port} and a HOST that includes this address.",
                address.ip()
            ),
            Some(io::ErrorKind::PermissionDenied) => {
                format!("This machine's firewall blocks outgoing UDP to port {port}.")
            }
            _ => format!(
                "No ping arrived. Check that\n  \
                 - wakeupd runs on the target machine, logs \"listening\" with port {port}, and does not log \"refused\"\n  \
                 - the firewalls of the target machine and of its provider allow incoming UDP to port {port}\n  \
                 - this machine's firewall and NAT allow replies to outgoing UDP"
            ),
        };
        let others = resolved.all.iter().map(SocketAddr::ip).filter(|ip| *ip != address.ip());
        let others: Vec<_> = others.map(|ip| ip.to_string()).collect();
        if others.is_empty() {
            return hint;
        }
        format!(
            "{hint}\nThe name also resolves to {}. Probe each of these addresses too.",
            others.join(", ")
        )
    }
}

fn unconnected(target: &Target, address: SocketAddr, error: &io::Error) -> io::Error {
    let advice = match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            format!(". Add the interface, as in {}%eth0", v6.ip())
        }
        _ => String::new(),
    };
    io::Error::other(format!("cannot reach {target} ({address}): {error}{advice}"))
}

/// A note about lines of the same kind that were suppressed before this one.
fn others(suppressed: u64) -> String {
    match suppressed {
        0 => String::new(),
        1 => ", 1 similar line suppressed".to_owned(),
        _ => format!(", {suppressed} similar lines suppressed"),
    }
}

fn print(line: impl Display) -> io::Result<()> {
    output::print(format_args!("{line}\n"))
}
