//! What is on disk of the values is whole at every moment: the old cache or the new one. A container that is killed leaves
//! what the kernel has in memory, so it proves nothing about that. Here the service runs beside this process, without systemd.

mod disk;
mod images;
mod kills;
mod mirror;
mod order;
mod readers;
mod service;

pub use images::*;
pub use kills::*;
pub use mirror::*;
pub use order::*;
pub use readers::*;
