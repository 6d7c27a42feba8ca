//! What is kept, and for how long.

mod age;
mod background;
mod deadline;
mod grace;
mod outages;
mod removal;
mod sealing;
mod together;
