//! The protocol: who may register, who is a client, and when each client gets a ping.

pub mod guard;
pub mod registry;
pub mod schedule;
