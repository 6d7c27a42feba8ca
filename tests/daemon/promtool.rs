//! Prometheus' own judge of metrics and rules.

use std::path::{Path, PathBuf};
use std::process::Command;

/// As `tests/run` puts it there, or that of the system.
pub fn promtool() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/promtool/promtool");
    if path.exists() {
        return path;
    }
    let answers = Command::new("promtool").arg("--version").output().is_ok();
    assert!(answers, "promtool is missing: tests/run puts it at {}", path.display());
    "promtool".into()
}
