//! Where the documentation is, for messages that name a page of it.

use std::path::Path;

/// A page, such as `docs/scale.md`: where `systemd/install` put it beside the program, else by its name in the repository.
pub fn document(name: &str) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    installed(&program, name).unwrap_or_else(|| name.to_owned())
}

fn installed(program: &Path, name: &str) -> Option<String> {
    let path = program.parent()?.parent()?.join("share/doc/opnix").join(name);
    path.exists().then(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_page_is_where_it_was_installed() {
        let prefix = std::env::temp_dir().join(format!("opnix-documents-{}", std::process::id()));
        let page = prefix.join("share/doc/opnix/docs/scale.md");
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        let program = prefix.join("bin/opnix");
        assert_eq!(installed(&program, "docs/scale.md"), None);
        fs::write(&page, "").unwrap();
        assert_eq!(installed(&program, "docs/scale.md"), Some(page.display().to_string()));
        fs::remove_dir_all(prefix).unwrap();
    }
}
