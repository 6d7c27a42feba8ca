//! Where unsafe code is.

use super::users_of;

#[test]
fn unsafe_code_is_in_two_files() {
    let homes = ["kernel.rs", "providers/ask/service_account/core.rs"];
    for what in ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"] {
        assert!(users_of(what).iter().all(|(file, _)| homes.contains(&file.as_str())), "{what}");
    }
}
