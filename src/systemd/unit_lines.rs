//! The lines of a unit file, as systemd reads them.

use std::io;
use std::path::Path;

use crate::files;
use crate::place::Place;

/// A file larger than this, in bytes, is not a unit file.
const SIZE_MAX: usize = 16 << 20;

/// An assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `Service`, without the brackets.
    pub section: String,
    pub key: String,
    pub value: String,
    pub place: Place,
}

/// The assignments of a file.
pub fn lines(path: &Path) -> io::Result<Vec<Line>> {
    // Bytes that are not UTF-8 are not part of any valid name.
    let text = files::read(path, SIZE_MAX)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut section = String::new();
    let mut found = Vec::new();
    for (number, line) in joined(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let place = Place { file: path.into(), position: Some((number, 1)) };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            found.push(Line { section: section.clone(), key, value, place });
        }
    }
    Ok(found)
}

/// The lines of a unit file with their numbers: continued ones joined, comments and blank ones left out.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut continued: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            // A comment does not end a continued line.
            continue;
        }
        let (number, before) = continued.take().unwrap_or((index + 1, String::new()));
        // A backslash that is itself escaped is none.
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        match line.strip_suffix('\\').filter(|_| backslashes % 2 == 1) {
            Some(part) => continued = Some((number, before + part + " ")),
            None if before.is_empty() && line.trim().is_empty() => {}
            None => all.push((number, (before + line).trim().to_owned())),
        }
    }
    all.extend(continued.map(|(number, line)| (number, line.trim().to_owned())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_one_and_comments_are_none() {
        let text = "# c\n[Service]\n\nLoadCredential=\\\n; inside\n  a:/run/s\nType=exec\\";
        let lines = joined(text);
        assert_eq!(lines[0], (2, "[Service]".into()));
        assert_eq!(lines[1], (4, "LoadCredential= a:/run/s".into()));
        assert_eq!(lines[2], (7, "Type=exec".into()));
    }
}
