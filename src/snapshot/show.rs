//! `wakeupd snapshot show`: prints a summary of a snapshot.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::{Moment, Snapshot};
use crate::cli::options::SnapshotCommand;
use crate::clock::Time;
use crate::disk;
use crate::engine::registry::View;
use crate::output::{self, grouped, printable};

/// The prefix of error messages.
const COMMAND: &str = "wakeupd snapshot";

/// Runs the subcommand. The exit code is 1 if the file cannot be used.
#[must_use]
pub fn run(command: &SnapshotCommand) -> ExitCode {
    let SnapshotCommand::Show(options) = command;
    let file = printable(&options.file.display().to_string());
    let path = options.file.clone();
    let read = disk::within_patience(move || disk::read(&path));
    let read = read.map_err(|error| format!("cannot read {file}: {error}"));
    let snapshot = read.and_then(|bytes| {
        Snapshot::parse(bytes).map_err(|reason| format!("cannot use {file}: {reason}"))
    });
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => return output::fail(COMMAND, error),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = show(&snapshot, options.clients, &Moment::now(), &mut out);
    output::end(
        COMMAND,
        ExitCode::SUCCESS,
        shown.and_then(|()| out.flush()).map_err(|error| output::unwritten(&error)),
    )
}

/// Totals and distributions over all clients.
struct Sums {
    /// Clients with an IPv6 address.
    v6: u64,
    muted: u64,
    heartbeats: u64,
    pings: u64,
    /// Time since the last heartbeat, in milliseconds.
    silences: Histogram<u64>,
    /// Time since the first heartbeat, in seconds.
    ages: Histogram<u64>,
}

impl Sums {
    fn of(snapshot: &Snapshot) -> Self {
        let most = u32::MAX.into();
        let histogram = || Histogram::new_with_bounds(1, most, 3).expect("the bounds are in order");
        let mut sums = Self {
            v6: 0,
            muted: 0,
            heartbeats: 0,
            pings: 0,
            silences: histogram(),
            ages: histogram(),
        };
        let begun = snapshot.header().taken.now;
        snapshot.for_each(begun, |client| {
            sums.v6 += u64::from(client.address.is_ipv6());
            sums.muted += u64::from(client.is_muted);
            sums.heartbeats += u64::from(client.heartbeats);
            sums.pings += u64::from(client.pings);
            let millis = begun.since(client.last_heartbeat).as_millis();
            sums.silences.saturating_record(u64::try_from(millis).unwrap_or(u64::MAX));
            sums.ages.saturating_record(begun.since(client.first_seen).as_secs());
        });
        sums
    }
}

fn show(
    snapshot: &Snapshot,
    with_clients: bool,
    now: &Moment,
    out: &mut impl Write,
) -> io::Result<()> {
    let header = snapshot.header();
    let sums = Sums::of(snapshot);
    let clients = snapshot.len();
    let age = match now.since(&header.taken) {
        Ok(age) => format!("{} ago", rounded(age)),
        Err(ahead) => format!("{} in the future by the clock", rounded(ahead)),
    };
    let begun = UNIX_EPOCH + header.taken.wall.since(Time::default());
    let end = if header.pinged_until.is_some() { "at shutdown" } else { "while running" };
    let millis = |millis: u64| rounded(Duration::from_millis(millis));
    let seconds = |seconds: u64| rounded(Duration::from_secs(seconds));
    let times = |times: &Histogram<u64>, unit: &dyn Fn(u64) -> String| {
        let [least, median, most] =
            [times.min(), times.value_at_quantile(0.5), times.max()].map(unit);
        format!("{least} to {most} before the snapshot, median {median}")
    };
    let mut lines = vec![
        ("written", format!("{}, {age}", humantime::format_rfc3339_seconds(begun))),
        (
            "by",
            format!("wakeupd {} on UDP port {}, {end}", printable(&header.program), header.port),
        ),
        (
            "clients",
            format!(
                "{} (IPv4 {}, IPv6 {}), {} muted",
                grouped(clients),
                grouped(clients - sums.v6),
                grouped(sums.v6),
                grouped(sums.muted)
            ),
        ),
    ];
    if clients > 0 {
        lines.extend([
            ("last heartbeats", times(&sums.silences, &millis)),
            ("first heartbeats", times(&sums.ages, &seconds)),
            ("heartbeats", grouped(sums.heartbeats)),
            ("pings", grouped(sums.pings)),
        ]);
    }
    lines.push(("size", format!("{} bytes", grouped(snapshot.size() as u64))));
    for (name, value) in lines {
        writeln!(out, "{name:<18}{value}")?;
    }
    if with_clients {
        show_clients(snapshot, out)?;
    }
    Ok(())
}

fn show_clients(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<47} {:>14} {:>14} {:>10} {:>10}  local address",
        "client", "last heartbeat", "first", "heartbeats", "pings"
    )?;
    let begun = snapshot.header().taken.now;
    let mut result = Ok(());
    snapshot.for_each(begun, |client| {
        if result.is_ok() {
            result = show_client(&client, begun, out);
        }
    });
    result
}

fn show_client(client: &View, begun: Time, out: &mut impl Write) -> io::Result<()> {
    let local = client.local.map_or("any".to_owned(), |ip| ip.to_string());
    writeln!(
        out,
        "{:<47} {:>14} {:>14} {:>10} {:>10}  {local}{}",
        client.address.to_string(),
        rounded(begun.since(client.last_heartbeat)),
        rounded(begun.since(client.first_seen)),
        client.heartbeats,
        client.pings,
        if client.is_muted { ", muted" } else { "" }
    )
}

/// Rounds to a tenth of a second below a minute, and down to the second above.
fn rounded(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
    }
}
