//! Asks the service for values.

use std::time::{Duration, Instant};

use super::Pass;
use crate::mirror::ask::{NoValue, Patience, ask};

impl Pass<'_> {
    pub fn ask(&mut self, names: &[String], patience: Patience) {
        if names.is_empty() {
            return;
        }
        self.telling.expect(names.iter().filter_map(|name| Some(self.by_content.get(name)?.len())).sum());
        let socket = self.mirror.socket.clone();
        let missing = ask(&socket, names, patience, |value| match value {
            Some((name, value)) => self.came(name, &value),
            None => self.take_what_is_done(),
        });
        self.missing.extend(missing);
    }

    /// Asks again for what was refused.
    pub fn ask_again(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut pause = Duration::from_millis(200);
        loop {
            let refused = self.missing.iter().filter(|(_, why)| **why == NoValue::Refused);
            let refused: Vec<String> = refused.map(|(name, _)| name.clone()).collect();
            if refused.is_empty() || Instant::now() + pause > end {
                return;
            }
            std::thread::sleep(pause);
            pause *= 2;
            let left = end.saturating_duration_since(Instant::now());
            self.ask(&refused, Patience { first: left, others: left });
        }
    }
}
