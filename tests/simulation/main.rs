//! Runs the whole core in virtual time: a daemon, its clients, attackers that forge heartbeats, the network
//! between them, and the faults of a process and its machine. A seed determines the entire run.
//!
//! ```sh
//! SIMULATION_SEED=17 cargo test --test simulation
//! ```
//!
//! replays the run of that seed.

mod client;
mod clocks;
mod crowd;
mod daemon;
mod growth;
mod network;
mod oracle;
mod plan;
mod rooms;
mod troubles;
mod world;

use std::env;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use growth::Life;
use oracle::Tally;
use plan::Plan;

const LIVES: u64 = 1_000;

/// The number of history entries in a failure report.
const NOTES: usize = 60;

/// Prints the replay command if the thread panics.
struct Told<'a>(&'a str, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", again(self.0, self.1));
        }
    }
}

fn again(test: &str, seed: u64) -> String {
    format!("replay it with: SIMULATION_SEED={seed} cargo test --test simulation {test}")
}

fn live(test: &str, plan: &Plan) -> Tally {
    let _told = Told(test, plan.seed);
    let failure = match world::live(plan, None) {
        Ok(tally) => return tally,
        Err(failure) => failure,
    };
    // Replay the run with the client watched.
    let notes = match failure.client.map(|client| world::live(plan, Some(client))) {
        Some(Err(again)) => again.notes,
        _ => Vec::new(),
    };
    let last = notes[notes.len().saturating_sub(NOTES)..].join("\n  ");
    panic!(
        "at {} client {:?}: {}\n  {last}\n{plan:#?}",
        failure.when, failure.client, failure.what
    );
}

/// The seed to replay, if `SIMULATION_SEED` is set.
fn asked_for() -> Option<u64> {
    env::var("SIMULATION_SEED").ok().map(|seed| seed.parse().expect("SIMULATION_SEED is a number"))
}

/// Runs a thousand lives on all processors.
fn all_lives<T: Send>(life: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        let work = || {
            let seeds = std::iter::repeat_with(|| next.fetch_add(1, Relaxed));
            seeds.take_while(|seed| *seed < LIVES).map(&life).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: ScopedJoinHandle<_>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    })
}

fn tell(what: &str, tally: &Tally, begun: Instant) {
    println!("{what}: {tally:?} in {:.1?}", begun.elapsed());
}

#[test]
fn a_thousand_lives_keep_every_promise() {
    let test = "a_thousand_lives";
    let begun = Instant::now();
    if let Some(seed) = asked_for() {
        return tell("a life", &live(test, &Plan::life(seed)), begun);
    }
    let tallies = all_lives(|seed| live(test, &Plan::life(seed)));
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    for (what, count) in [
        ("pings", sum(|tally| tally.pings)),
        ("refused", sum(|tally| tally.refused)),
        ("stale", sum(|tally| tally.stale)),
        ("made way", sum(|tally| tally.made_way)),
        ("muted", sum(|tally| tally.muted)),
        ("moves", sum(|tally| tally.moves)),
        ("restarts", sum(|tally| tally.restarts)),
        ("restored", sum(|tally| tally.restored)),
    ] {
        println!("{what}: {count}");
        assert!(count > LIVES, "too few {what} for the run to be meaningful");
    }
    println!("{LIVES} lives in {:.1?}", begun.elapsed());
}

#[test]
fn a_thousand_lives_that_grow_and_shrink_keep_the_period() {
    let test = "a_thousand_lives_that_grow";
    let begun = Instant::now();
    let grow = |seed| {
        let _told = Told(test, seed);
        let mut life = Life::new(seed);
        life.live();
        life.tally
    };
    if let Some(seed) = asked_for() {
        return println!("a life: {:?} in {:.1?}", grow(seed), begun.elapsed());
    }
    let tallies = all_lives(grow);
    let pings = tallies.iter().map(|tally| tally.pings).sum::<u64>();
    let moves = tallies.iter().map(|tally| tally.moves).sum::<u64>();
    let finest = tallies.iter().map(|tally| tally.most_slots).max();
    println!("{LIVES} lives, {pings} pings, {moves} moves in {:.1?}", begun.elapsed());
    assert!(pings > 1_000 * LIVES && moves > LIVES, "too few for the run to be meaningful");
    assert_eq!(finest, Some(256));
}

#[test]
fn a_day_of_ten_thousand_clients_keeps_every_promise() {
    let begun = Instant::now();
    let tally = live("a_day", &Plan::day(asked_for().unwrap_or(1)));
    tell("a day", &tally, begun);
}

#[test]
fn a_rush_of_ten_thousand_clients_keeps_every_promise() {
    let begun = Instant::now();
    let tally = live("a_rush", &Plan::rush(asked_for().unwrap_or(1)));
    tell("a rush", &tally, begun);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = Plan::life(asked_for().unwrap_or(1));
    let lives = [0, 1].map(|_| live("the_same_seed", &plan));
    assert_eq!(lives[0], lives[1]);
    assert!(live("the_same_seed", &Plan::life(plan.seed + 1)) != lives[0]);
}
