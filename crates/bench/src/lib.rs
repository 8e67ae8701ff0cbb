//! `wakeupd-bench`, a load generator: a crowd of clients that times every ping.
//!
//! It talks to the daemon only over the wire and through the HTTP endpoint. It needs Linux, where a whole
//! network can be local, so that one socket serves many clients, and where the kernel timestamps each ping.

#![cfg(target_os = "linux")]

mod baseline;
mod churn;
mod crowd;
mod heartbeats;
mod histogram;
mod measurement;
mod operator;
mod options;
mod pings;
mod plan;
mod processes;
mod report;
mod restart;
mod route;
mod socket;
mod subject;
mod wire;

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use wakeupd::output;

use options::{MOST_CLIENTS, Options};
use plan::Plan;
use report::Report;
use route::Route;

/// `--ramp` stops when its step is at most the largest number of clients that missed no ping, divided by this
/// number.
const RAMP_PRECISION: u32 = 20;

/// Runs the program with the arguments of the process.
#[must_use]
pub fn run() -> ExitCode {
    let options = Options::parse();
    if let Err(mistake) = options.check() {
        Options::command().error(ErrorKind::ValueValidation, mistake).exit();
    }
    match bench(&options) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => output::fail("wakeupd-bench", error),
    }
}

fn bench(options: &Options) -> io::Result<Report> {
    let route = Route::choose(options)?;
    let plan = options.plan();
    let report = if options.ramp {
        ramp(&route, options, &plan)?
    } else {
        route.measure(options, &plan, options.clients)?
    };
    let json = || serde_json::to_string_pretty(&report);
    match options.json.as_deref() {
        Some(file) if file == Path::new("-") => print(json()?)?,
        file => {
            if let Some(file) = file {
                fs::write(file, json()? + "\n").map_err(|error| {
                    let file = file.display();
                    io::Error::new(error.kind(), format!("cannot write {file}: {error}"))
                })?;
            }
            print(report.to_string().trim_end())?;
        }
    }
    Ok(report)
}

/// Finds the largest crowd that misses no ping.
fn ramp(route: &Route, options: &Options, plan: &Plan) -> io::Result<Report> {
    let mut best: Option<Report> = None;
    let mut clients = options.clients;
    let mut step = None;
    loop {
        let report = route.measure(options, plan, clients)?;
        let is_carried = report.is_good();
        let missed = match report.pings.missed {
            _ if is_carried => "no pings missed".to_owned(),
            missed => format!("pings missed: {missed}"),
        };
        let progress =
            format!("{clients} clients: {missed}, p99.9 {:.3} ms", report.deviation_ms.p99_9);
        // The reader of standard error may be gone.
        let _ = writeln!(io::stderr(), "{progress}");
        if is_carried {
            best = Some(report);
        }
        let carried = best.as_ref().map_or(0, |report| report.clients);
        step = match step {
            None if is_carried && clients < MOST_CLIENTS => None,
            None if is_carried => break,
            None => Some((clients - carried) / 2),
            Some(step) => Some(step / 2),
        };
        clients = match step {
            None => clients.saturating_mul(2).min(MOST_CLIENTS),
            Some(step) if step > carried / RAMP_PRECISION => carried + step,
            Some(_) => break,
        };
    }
    best.ok_or_else(|| {
        io::Error::other(
            "even a single client missed pings, so there is no number of clients to report",
        )
    })
}

/// Prints the figures. A closed pipe is not an error.
fn print(text: impl Display) -> io::Result<()> {
    match output::print(format_args!("{text}\n")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
