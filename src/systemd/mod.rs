//! What systemd hands to us and what we tell it: sockets, state, stored descriptors.

pub mod activation;
pub mod asker;
pub mod notify;
