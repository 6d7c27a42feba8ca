//! Changes the JSON of the simulators' answers on its way out, for tests of what one broken member does.

use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Ends the name of a member that its object has already: it then has two of that name.
pub const AGAIN: char = '\0';

type Change = dyn Fn(&str, &mut Value) + Send;

/// Gets the path of the request, or the name of a part that is sealed by itself, and the JSON.
#[derive(Clone, Default)]
pub struct Hook(Arc<Mutex<Option<Box<Change>>>>);

impl Hook {
    pub fn set(&self, change: impl Fn(&str, &mut Value) + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(change));
    }

    /// What goes out.
    pub fn text(&self, on: &str, value: &Value) -> String {
        let hook = self.0.lock().unwrap();
        let Some(change) = hook.as_ref() else { return value.to_string() };
        let mut value = value.clone();
        change(on, &mut value);
        value.to_string().replace("\\u0000\":", "\":")
    }
}
