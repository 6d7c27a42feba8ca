//! Numbers with what they count, as in a sentence.

/// `1 fault`, `2 faults`. `one` is the noun for one of them, which an `s` at its end makes plural.
pub fn counted(number: impl TryInto<u64>, one: &str) -> String {
    // What does not fit is more than one.
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_several() {
        assert_eq!(counted(0_usize, "fault"), "0 faults");
        assert_eq!(counted(1_u64, "fault"), "1 fault");
        assert_eq!(counted(2_u32, "LoadCredential= line"), "2 LoadCredential= lines");
    }
}
