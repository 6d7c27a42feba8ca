//! No byte of a sealed file can be changed, moved or read.

use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> Key {
    Key::new(&[byte; KEY_LENGTH]).unwrap()
}

fn entry(value: &[u8], millis: u64) -> Kept {
    Kept {
        value: Secret::copy_from(value).unwrap().into(),
        fetched: from_millis(millis),
        denied: (millis % 2 == 1).then(|| from_millis(millis + 5)),
        doubtful: false,
        comparable: None,
        asked: 0,
    }
}

fn entries(values: &[(&str, &[u8])]) -> Vec<(Reference, Kept)> {
    let line = |(at, (field, value)): (usize, &(&str, &[u8]))| {
        (format!("op://vault/item/{field}").parse().unwrap(), entry(value, 1000 + at as u64))
    };
    values.iter().enumerate().map(line).collect()
}

fn sealed(entries: &[(Reference, Kept)]) -> Vec<u8> {
    seal(&key(7), "account", entries.iter().map(|(reference, entry)| (reference, entry))).unwrap()
}

type Shown = Vec<(String, Vec<u8>, SystemTime, Option<SystemTime>)>;

fn shown(entries: &[(Reference, Kept)]) -> Shown {
    let show = |(reference, entry): &(Reference, Kept)| {
        (reference.to_string(), entry.value.expose().to_vec(), entry.fetched, entry.denied)
    };
    entries.iter().map(show).collect()
}

#[test]
fn what_was_sealed_opens() {
    let entries = entries(&[("a", b"first"), ("b", &[0, 255, 10]), ("c", &[b'x'; 100_000])]);
    let contents = open(&key(7), &sealed(&entries)).unwrap();
    assert_eq!(contents.account, "account");
    assert_eq!(shown(&contents.entries), shown(&entries));
    assert!(open(&key(7), &sealed(&[])).unwrap().entries.is_empty());
}

#[test]
fn nothing_of_it_can_be_read_in_the_file() {
    let file = sealed(&entries(&[("needle-field", b"needle-value")]));
    assert!(!file.windows(6).any(|window| window == b"needle"));
    assert!(!file.windows(7).any(|window| window == b"account"));
}

#[test]
fn a_file_with_any_byte_changed_missing_or_added_does_not_open() {
    let file = sealed(&entries(&[("a", b"one"), ("b", b"two")]));
    for at in 0..file.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] ^= change;
            assert!(open(&key(7), &changed).is_err(), "byte {at}");
        }
        assert!(open(&key(7), &file[..at]).is_err(), "the first {at} bytes");
        let mut shorter = file.clone();
        shorter.remove(at);
        assert!(open(&key(7), &shorter).is_err(), "without byte {at}");
    }
    assert_eq!(open(&key(7), &[&file[..], b"x"].concat()).unwrap_err(), OpenError::Sealed);
}

#[test]
fn why_a_file_does_not_open_is_told() {
    let file = sealed(&entries(&[("a", b"one")]));
    let why = |key: &Key, file: &[u8]| open(key, file).unwrap_err();
    assert_eq!(why(&key(8), &file), OpenError::Sealed);
    assert_eq!(why(&key(7), &file[..60]), OpenError::Truncated);
    assert_eq!(why(&key(7), b""), OpenError::Truncated);
    assert_eq!(why(&key(7), b"something else"), OpenError::Foreign);
    let other_version = [b"opnix sealed cache 2\n", &file[FIRST_LINE.len()..]].concat();
    assert_eq!(why(&key(7), &other_version), OpenError::Version);
}

#[test]
fn values_cannot_be_swapped_within_a_file_or_between_files() {
    // Each value of one byte: nonce, value and tag are the last 41 bytes, and those before them.
    let (one, two) = (entries(&[("a", b"1"), ("b", b"2")]), entries(&[("a", b"3"), ("b", b"4")]));
    let (one, two) = (sealed(&one), sealed(&two));
    let record = NONCE_LENGTH + 1 + TAG_LENGTH;
    let (end, middle) = (one.len(), one.len() - record);
    let swapped = [&one[..middle - record], &one[middle..], &one[middle - record..middle]].concat();
    assert_eq!(swapped.len(), end);
    assert_eq!(open(&key(7), &swapped).unwrap_err(), OpenError::Sealed);
    // The same reference, account and times, but another file of the same key.
    let mixed = [&one[..middle], &two[middle..]].concat();
    assert_eq!(open(&key(7), &mixed).unwrap_err(), OpenError::Sealed);
    assert!(open(&key(7), &one).is_ok() && open(&key(7), &two).is_ok());
}

#[test]
fn any_time_in_a_file_is_taken_without_panic() {
    let now = SystemTime::now();
    for millis in [0, 1, 253_402_300_800_000, i64::MAX as u64, u64::MAX - 6] {
        let name: Reference = "op://vault/item/field".parse().unwrap();
        for (_, entry) in open(&key(7), &sealed(&[(name, entry(b"x", millis))])).unwrap().entries {
            assert_eq!(entry.fetched, from_millis(millis));
            let known = entry.known(now);
            assert!(known.age.is_none() || entry.fetched <= now);
        }
    }
}

// The next two are fuzzing: `PROPTEST_CASES=10000000 cargo test --release --lib sealed` goes on for as long as you like.
proptest! {
    #[test]
    fn no_input_makes_it_panic_or_open(
        head in prop_oneof![Just(FIRST_LINE.to_vec()), Just(KIND.to_vec()), Just(Vec::new())],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(open(&key(7), &[head, rest].concat()).is_err());
    }

    #[test]
    fn a_true_file_that_is_cut_patched_and_put_together_anew_does_not_open(
        patches in proptest::collection::vec(
            (any::<u16>(), 0usize..80, proptest::collection::vec(any::<u8>(), 0..80)), 0..4),
        moved in proptest::option::of((any::<u16>(), any::<u16>(), 1usize..120)),
    ) {
        let whole = sealed(&entries(&[("a", b"one"), ("b", b"two"), ("c", b"three")]));
        let mut file = whole.clone();
        for (at, length, patch) in patches {
            let at = usize::from(at) % (file.len() + 1);
            let end = (at + length).min(file.len());
            file.splice(at..end, patch);
        }
        // As if blocks of the disk had changed places.
        if let Some((from, to, length)) = moved.filter(|_| !file.is_empty()) {
            let from = usize::from(from) % file.len();
            let piece: Vec<u8> = file.drain(from..(from + length).min(file.len())).collect();
            let to = usize::from(to) % (file.len() + 1);
            file.splice(to..to, piece);
        }
        prop_assert_eq!(open(&key(7), &file).is_ok(), file == whole);
    }

    #[test]
    fn any_values_come_back(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8)) {
        let entries: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| (format!("op://v/i/f{at}").parse().unwrap(), entry(value, at as u64)))
            .collect();
        prop_assert_eq!(shown(&open(&key(7), &sealed(&entries)).unwrap().entries), shown(&entries));
    }
}
