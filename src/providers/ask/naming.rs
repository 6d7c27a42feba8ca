//! How the parts of a reference match vaults, items, sections, fields and files.

use crate::providers::error::{FetchError, ObjectKind};
use crate::similar;

/// What a reference can name: by name in any case, or by id. The ids of vaults and items must match exactly, those within an
/// item in any case, as in the SDK.
pub trait Nameable {
    const KIND: ObjectKind;
    fn id(&self) -> &str;
    fn name(&self) -> &str;

    fn answers_to(&self, wanted: &str) -> bool {
        let by_id = match Self::KIND {
            ObjectKind::Vault | ObjectKind::Item => self.id() == wanted,
            ObjectKind::Section | ObjectKind::Field | ObjectKind::File => {
                self.id().eq_ignore_ascii_case(wanted)
            }
        };
        by_id || is_same_in_any_case(self.name(), wanted)
    }
}

/// The one that answers to `wanted`. Two of them are an error, because one of them would be the wrong secret.
pub fn only<'v, T: Nameable>(
    all: impl Iterator<Item = &'v T>,
    wanted: &str,
) -> Result<Option<&'v T>, FetchError> {
    let mut found = all.filter(|one| one.answers_to(wanted));
    let (first, second) = (found.next(), found.next());
    if second.is_none() {
        return Ok(first);
    }
    let candidates = first.into_iter().chain(second).chain(found).map(|one| one.id().to_owned()).collect();
    Err(FetchError::Ambiguous { what: T::KIND, name: wanted.to_owned(), candidates })
}

/// Some of the names of these, the one that `wanted` was probably meant to be first: for an error.
pub fn names<'v, T: Nameable + 'v>(wanted: &str, all: impl IntoIterator<Item = &'v T>) -> Vec<String> {
    similar::listed(wanted, all.into_iter().map(Nameable::name))
}

/// Only the name that `wanted` was probably meant to be.
pub fn nearest<'v, T: Nameable + 'v>(wanted: &str, all: impl IntoIterator<Item = &'v T>) -> Vec<String> {
    let nearest = similar::nearest(wanted, all.into_iter().map(Nameable::name));
    nearest.into_iter().map(str::to_owned).collect()
}

/// 1Password compares names of ASCII characters in any case; so are all others.
fn is_same_in_any_case(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
        || !(one.is_ascii() || other.is_ascii())
            && one.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase))
}
