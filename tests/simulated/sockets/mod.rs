//! Who may ask on the sockets of the service.

mod mirrored;
mod own;
