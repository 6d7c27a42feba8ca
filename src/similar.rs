//! What somebody probably meant who wrote a name that does not exist.

/// How many names are listed where all that exist cannot be.
const LISTED_MAX: usize = 8;
/// Names longer than this are not compared, and not listed: nobody types them. In characters.
const NAME_MAX: usize = 100;

/// The known word that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(written, known, |word| word)
}

/// The same of names of units: all have one of a few endings, which says nothing of what is meant.
pub fn nearest_unit<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    fn stem(unit: &str) -> &str {
        unit.rsplit_once('.').map_or(unit, |(stem, _)| stem)
    }
    nearest_by(stem(written), known, stem)
}

fn nearest_by<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
    compared: impl Fn(&str) -> &str,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    let length = written.chars().count();
    let distance = |word: &'a str| {
        let compared = compared(word).to_lowercase();
        let long = compared.chars().count();
        let most = (long / 3).max(1);
        // What is as far as the word is long has nothing in common with it.
        (long <= NAME_MAX && long.abs_diff(length) <= most)
            .then(|| strsim::damerau_levenshtein(&written, &compared))
            .filter(|distance| *distance <= most && *distance < long)
            .map(|distance| (distance, word))
    };
    known.into_iter().filter_map(distance).min().map(|(_, word)| word)
}

/// Asks whether the most similar name was meant, if there is one.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|word| format!("did you mean {word:?}?"))
}

/// Names that exist, a bounded number: the one that `written` was probably meant to be stands first.
pub fn listed<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let is_printable = |name: &&str| {
        !name.is_empty() && name.chars().count() <= NAME_MAX && !name.contains(char::is_control)
    };
    let mut names: Vec<&str> = known.into_iter().filter(is_printable).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(nearest) = nearest(written, names.iter().copied())
        && let Some(at) = names.iter().position(|name| *name == nearest)
    {
        names[..=at].rotate_right(1);
    }
    names.into_iter().take(LISTED_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized_and_another_word_is_not() {
        assert_eq!(nearest("refrence", ["name", "reference"]), Some("reference"));
        assert_eq!(nearest("Password", ["password"]), Some("password"));
        assert_eq!(nearest("path", ["units", "mode"]), None);
        // One letter is not like another.
        assert_eq!(nearest("a", ["b"]), None);
        assert_eq!(nearest("x", [""]), None);
    }

    #[test]
    fn the_ending_of_a_unit_does_not_make_it_similar() {
        assert_eq!(nearest_unit("a.service", ["b.service"]), None);
        assert_eq!(
            nearest_unit("postgres.service", ["postgresql.service", "nginx.service"]),
            Some("postgresql.service")
        );
        assert_eq!(nearest_unit("backup@x.service", ["backup@.service"]), Some("backup@.service"));
    }

    #[test]
    fn the_similar_one_stands_first_and_the_list_ends() {
        assert_eq!(
            listed("pasword", ["username", "password", "note", "password"]),
            ["password", "note", "username"]
        );
        let many: Vec<String> = (0..100).map(|number| format!("field {number}")).collect();
        assert_eq!(listed("x", many.iter().map(String::as_str)).len(), LISTED_MAX);
        let odd = ["", "line\nbreak", &"long".repeat(NAME_MAX)];
        assert!(listed("x", odd).is_empty());
    }
}
