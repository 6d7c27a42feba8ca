//! From JSON text to the types of [`super::file`], noting every fault with its place on the way.
//!
//! serde stops at the first fault and does not say where a value stands, so the types are read from a syntax tree. The
//! macro [`object!`] makes a type, its reader and its JSON Schema from one list of keys, so that they cannot differ.

mod macros;
pub(super) mod reader;
mod values;

pub(super) use macros::{choice, object};
pub use reader::{At, Decode, Reader, decode};
pub use values::Required;
