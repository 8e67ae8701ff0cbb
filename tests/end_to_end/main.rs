//! The real program over real sockets.

mod configuration;
mod crowd;
mod daemon;
mod failing;
mod lifecycle;
mod logs;
mod needs;
mod network;
mod networks;
mod probing;
mod serving;
