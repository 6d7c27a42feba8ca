//! No byte of a sealed file can be changed, moved or read.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn key(byte: u8) -> Key {
    Key::new(&[byte; KEY_LENGTH]).unwrap()
}

fn entry(value: &[u8], millis: u64) -> Kept {
    Kept {
        value: Secret::copy_from(value).unwrap().into(),
        fetched: Stamp::Earlier(from_millis(millis)),
        denied: (millis % 2 == 1).then(|| Stamp::Earlier(from_millis(millis + 5))),
        doubtful: false,
        read: Moment::BOOT,
        comparable: None,
        asked: 0,
        from_disk: false,
    }
}

fn entries(values: &[(&str, &[u8])]) -> Vec<(Reference, Kept)> {
    let line = |(at, (field, value)): (usize, &(&str, &[u8]))| {
        (format!("op://vault/item/{field}").parse().unwrap(), entry(value, 1000 + at as u64))
    };
    values.iter().enumerate().map(line).collect()
}

/// So many minutes after the boot, at a date that is right.
fn now(minutes: u32) -> Now {
    let since = minutes * Duration::from_secs(60);
    Now { date: from_millis(1_800_000_000_000) + since, moment: Moment::BOOT + since }
}

fn ahead(now: Now) -> Now {
    Now { date: now.date + YEAR, ..now }
}

fn behind(now: Now) -> Now {
    Now { date: now.date - YEAR, ..now }
}

fn boot() -> Boot {
    Boot::named("one")
}

fn sealed_at(entries: &[(Reference, Kept)], now: Now, boot: Option<&Boot>) -> Vec<u8> {
    let entries = entries.iter().map(|(reference, entry)| (reference, entry));
    seal(&key(7), "account", entries, now, boot).unwrap().file
}

fn sealed(entries: &[(Reference, Kept)]) -> Vec<u8> {
    sealed_at(entries, now(60), Some(&boot()))
}

fn open(key: &Key, file: &[u8]) -> Result<Contents, OpenError> {
    super::open(key, file, now(60), Some(&boot()))
}

type Shown = Vec<(String, Vec<u8>, Stamp, Option<Stamp>)>;

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
fn what_is_to_be_confirmed_still_is_when_it_is_read() {
    let mut entries = entries(&[("a", b"1"), ("b", b"2"), ("c", b"3")]);
    entries[1].1.doubtful = true;
    let read = open(&key(7), &sealed(&entries)).unwrap().entries;
    let doubtful: Vec<bool> = read.iter().map(|(_, entry)| entry.doubtful).collect();
    assert_eq!(doubtful, [false, true, false]);
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
    for millis in [0, 1, 253_402_300_800_000, i64::MAX as u64, u64::MAX - 6] {
        let name: Reference = "op://vault/item/field".parse().unwrap();
        for (_, entry) in open(&key(7), &sealed(&[(name, entry(b"x", millis))])).unwrap().entries {
            assert_eq!(entry.fetched, Stamp::Earlier(from_millis(millis)));
            let known = entry.known(now(60));
            assert!(known.age.is_none() || from_millis(millis) <= now(60).date);
        }
    }
}

/// One value of this boot, fetched in its 10th minute and denied in its 20th, and one of an earlier boot.
fn of_two_boots() -> [(Reference, Kept); 2] {
    let name = |name: &str| format!("op://vault/item/{name}").parse().unwrap();
    let here =
        Kept { fetched: now(10).moment.into(), denied: Some(now(20).moment.into()), ..entry(b"first", 0) };
    [
        (name("a"), here),
        (name("b"), Kept { fetched: Stamp::Earlier(now(0).date - HOUR), ..entry(b"second", 0) }),
    ]
}

fn ages(contents: &Contents, now: Now) -> Vec<(Option<u64>, Option<u64>)> {
    let minutes = |duration: Duration| duration.as_secs() / 60;
    let known = contents.entries.iter().map(|(_, entry)| entry.known(now));
    known.map(|known| (known.age.map(minutes), known.denied_for.map(minutes))).collect()
}

#[test]
fn a_restart_of_the_service_changes_no_age_whatever_the_clock_was_set_to_meanwhile() {
    let clocks: [fn(Now) -> Now; 3] = [|now| now, ahead, behind];
    for before in clocks {
        let file = sealed_at(&of_two_boots(), before(now(30)), Some(&boot()));
        for after in clocks {
            let contents = super::open(&key(7), &file, after(now(40)), Some(&boot())).unwrap();
            let ages = ages(&contents, after(now(40)));
            assert_eq!(ages[0], (Some(30), Some(20)));
            assert_eq!(
                ages[1].0,
                after(now(40)).date.duration_since(now(0).date - HOUR).ok().map(|age| age.as_secs() / 60)
            );
            assert_eq!(contents.dated, Some(before(now(30)).setting()));
        }
    }
}

#[test]
fn after_a_reboot_the_dates_count() {
    for boot in [Some(Boot::named("two")), None] {
        let file = sealed_at(&of_two_boots(), now(30), Some(&super::tests::boot()));
        let opened = |now| super::open(&key(7), &file, now, boot.as_ref()).unwrap();
        let next = Now { moment: now(1).moment, ..now(40) };
        assert_eq!(ages(&opened(next), next), [(Some(30), Some(20)), (Some(100), None)]);
        assert_eq!(ages(&opened(behind(next)), behind(next)), [(None, Some(0)), (None, None)]);
        let year = YEAR.as_secs() / 60;
        assert_eq!(
            ages(&opened(ahead(next)), ahead(next)),
            [(Some(year + 30), Some(year + 20)), (Some(year + 100), None)]
        );
        assert_eq!(opened(next).dated, None);
    }
    let nameless = sealed_at(&of_two_boots(), now(30), None);
    assert_eq!(ages(&open(&key(7), &nameless).unwrap(), now(40)), [(Some(30), Some(20)), (Some(100), None)]);
}

#[test]
fn a_clock_that_was_set_right_before_the_file_was_written_gives_right_dates_to_the_next_boot() {
    // Fetched by a clock that was a year ahead, or behind: of that nothing is left.
    let file = sealed_at(&of_two_boots(), now(30), Some(&boot()));
    let next = Now { moment: now(1).moment, ..now(40) };
    let contents = super::open(&key(7), &file, next, Some(&Boot::named("two"))).unwrap();
    assert_eq!(contents.entries[0].1.fetched, Stamp::Earlier(now(10).date));
}

#[test]
fn moments_that_are_not_those_of_the_lines_or_lie_in_the_future_do_not_count() {
    let file = sealed_at(&of_two_boots(), now(30), Some(&boot()));
    let contents =
        super::open(&key(7), &file, Now { moment: now(15).moment, ..now(40) }, Some(&boot())).unwrap();
    let entry = &contents.entries[0].1;
    assert_eq!(entry.fetched, now(10).moment.into());
    assert_eq!(entry.denied, Some(Stamp::Earlier(now(20).date)));
    // One moment too few.
    let mut index = index_of(&sealed_at(&[], now(30), Some(&boot())));
    index.values.push(Line { reference: of_two_boots()[0].0.clone(), fetched: 0, denied: None, length: 1 });
    let file = with_one_value(index);
    let contents = open(&key(7), &file).unwrap();
    assert_eq!((contents.entries[0].1.fetched, contents.dated), (Stamp::Earlier(from_millis(0)), None));
}

fn index_of(file: &[u8]) -> Index {
    let mut rest = &file[FIRST_LINE.len()..];
    let nonce = take_nonce(&mut rest).unwrap();
    let length = u32::from_be_bytes(take(&mut rest, 4).unwrap().try_into().unwrap());
    let mut index = take(&mut rest, length as usize).unwrap().to_vec();
    key(7).cipher().decrypt_in_place(&nonce, FIRST_LINE, &mut index).unwrap();
    serde_json::from_slice(&index).unwrap()
}

/// A file with this index, of one line for one byte.
fn with_one_value(index: Index) -> Vec<u8> {
    let (cipher, nonce) = (key(7).cipher(), XNonce::try_generate().unwrap());
    let mut text = serde_json::to_vec(&index).unwrap();
    cipher.encrypt_in_place(&nonce, FIRST_LINE, &mut text).unwrap();
    let mut value = b"x".to_vec();
    let bound = binding(&nonce, &index.account, &index.values[0]).unwrap();
    cipher.encrypt_in_place(&nonce, &bound, &mut value).unwrap();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [FIRST_LINE, &nonce, &length, &text, &nonce, &value].concat()
}

/// Written by opnix before it knew moments, with the values of [`what_was_sealed_opens`] but the last.
const OLD: &str = include_str!("old.hex");

#[test]
fn a_file_of_an_older_opnix_opens_and_an_older_opnix_opens_this_one() {
    let digit = |at: usize| u8::from_str_radix(&OLD[at..at + 2], 16).unwrap();
    let file: Vec<u8> = (0..OLD.trim_end().len()).step_by(2).map(digit).collect();
    let contents = open(&key(7), &file).unwrap();
    assert_eq!(shown(&contents.entries), shown(&entries(&[("a", b"first"), ("b", b"second")])));
    assert_eq!((contents.account.as_str(), contents.dated), ("account", None));

    /// What that one knows of an index.
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct OldIndex {
        account: String,
        values: Vec<OldLine>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct OldLine {
        reference: Reference,
        fetched: u64,
        denied: Option<u64>,
        length: u32,
    }
    let index = index_of(&sealed(&of_two_boots()));
    let old: OldIndex = serde_json::from_slice(&serde_json::to_vec(&index).unwrap()).unwrap();
    let text = |lines: &[u8]| String::from_utf8(lines.to_vec()).unwrap();
    // What values are bound to is the same for both.
    assert_eq!(
        text(&serde_json::to_vec(&old.values).unwrap()),
        text(&serde_json::to_vec(&index.values).unwrap())
    );
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
