//! What is not sealed with the key must not open, whatever it is. The input is taken as a list of edits of a true file, so that
//! the fuzzer gets past the first line; and once as it is.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use opnix::internals::Kept;
use opnix::internals::Secret;
use opnix::internals::sealed::{Key, open, seal};
use opnix::internals::{Moment, Now, Reference};

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(&[7; 32]).expect("a key"));

static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let entry = |name: &str| -> (Reference, Kept) {
        let value = Secret::copy_from(name.as_bytes()).expect("not empty").into();
        let fetched = Moment::BOOT.into();
        let entry = Kept { value, fetched, denied: None, doubtful: false, comparable: None, asked: 0 };
        (format!("op://vault/item/{name}").parse().expect("a reference"), entry)
    };
    let entries = ["one", "two", "three"].map(entry);
    seal(&KEY, "account", entries.iter().map(|(reference, entry)| (reference, entry)), Now::read(), None)
        .expect("sealed")
});

fuzz_target!(|input: &[u8]| {
    assert!(open(&KEY, input, Now::read(), None).is_err());
    let mut file = VALID.clone();
    for edit in input.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]]));
        match edit[2] % 4 {
            0 if at < file.len() => file[at] = edit[3],
            1 if at < file.len() => drop(file.remove(at)),
            2 => file.truncate(at),
            _ => file.insert(at.min(file.len()), edit[3]),
        }
    }
    assert_eq!(open(&KEY, &file, Now::read(), None).is_ok(), file == *VALID);
});
