//! `wakeupd snapshot show`: what is in a snapshot.
