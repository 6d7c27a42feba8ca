//! What the files of this repository say of each other: all that the documentation shows is run, what is made from the
//! code is what the code makes, and what the compiler does not check in the code is checked.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod docs;
mod exposure;
mod generated;
