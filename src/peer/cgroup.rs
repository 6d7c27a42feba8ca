//! In which unit a process sits, by the path of its cgroup. Pure rules.

use std::fs;

use crate::names::UnitName;
use crate::remedy::Remedy;

/// The cgroup below which a service manager keeps its units, without a slash at its end: empty for a system manager
/// that sits at the root of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerCgroup(String);

/// The path on the line of the unified hierarchy. On hybrid hosts the other lines prove nothing.
pub fn unified_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/'))
}

/// Why no peer can be told from another on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine has the legacy cgroup hierarchy only, which does not say for certain which unit a process is in"
)]
pub struct Legacy;

impl Legacy {
    /// If it is so on this machine.
    pub fn here() -> Option<Self> {
        Self::seen_in(&fs::read_to_string("/proc/1/cgroup").unwrap_or_default())
    }

    /// By the cgroups of the system's service manager: it has put itself into one of version 1, and not into one of the
    /// unified hierarchy, as it does on hybrid hosts.
    fn seen_in(cgroups: &str) -> Option<Self> {
        let of_manager = |path: &str| path.ends_with("/init.scope");
        let legacy = cgroups.lines().any(|line| line.contains(":name=systemd:") && of_manager(line));
        (legacy && !unified_path(cgroups).is_some_and(of_manager)).then_some(Self)
    }
}

impl Remedy for Legacy {
    fn remedy(&self) -> Option<String> {
        Some(
            "boot it with systemd.unified_cgroup_hierarchy=1 on the kernel's command line; a container has what its host gives it"
                .to_owned(),
        )
    }
}

/// The unit in which a cgroup lies, and what is below the unit's own cgroup.
struct UnitCgroup<'a> {
    component: &'a str,
    below: &'a str,
}

impl ManagerCgroup {
    pub fn of_system() -> Self {
        let cgroup = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
        let root = unified_path(&cgroup).and_then(|path| path.strip_suffix("/init.scope"));
        Self(root.unwrap_or_default().to_owned())
    }

    /// The user's manager above this process; without one, where systemd would put it.
    pub fn of_user(uid: u32) -> Self {
        let name = format!("/user@{uid}.service");
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let above = unified_path(&cgroup).and_then(|path| Some(&path[..path.find(&name)? + name.len()]));
        Self(above.map_or_else(|| format!("/user.slice/user-{uid}.slice{name}"), str::to_owned))
    }

    pub fn path(&self) -> &str {
        &self.0
    }

    /// Whether a process there may ask for what is this unit's: it sits in the unit, or is the manager.
    pub fn speaks_for(&self, path: &str, unit: &UnitName) -> bool {
        self.is_at(path) || self.unit_of(path).is_some_and(|found| found.is(unit))
    }

    /// The unit that a path lies in, if it is one of this manager's own, and not of a user's manager below it.
    pub fn own_unit<'a>(&self, path: &'a str) -> Option<&'a str> {
        let found = self.unit_of(path)?;
        let of_a_user = found.component.starts_with("user@");
        (found.component.contains('.') && !of_a_user).then_some(found.component)
    }

    /// The name under which peers there are counted together: the unit of this manager, however many cgroups it makes
    /// below its own.
    pub fn group_of<'a>(&self, path: &'a str) -> &'a str {
        self.unit_of(path).map_or(path, |found| found.component)
    }

    /// Whether it is the manager's own cgroup, which holds only the manager, and children that it has not moved to a
    /// unit yet. From there systemd 260 and later ask when they refresh the credentials of a running unit.
    fn is_at(&self, path: &str) -> bool {
        path.strip_prefix(&self.0) == Some("/init.scope")
    }

    /// As systemd itself finds the unit of a process: below the manager, past all slices, the first component. What
    /// lies deeper is the unit's own making: in `/system.slice/forger.service/postgres.service` it is the forger's.
    fn unit_of<'a>(&self, path: &'a str) -> Option<UnitCgroup<'a>> {
        let mut rest = path.strip_prefix(&self.0)?.strip_prefix('/')?;
        loop {
            let (component, below) = rest.split_once('/').unwrap_or((rest, ""));
            if !component.ends_with(".slice") {
                return Some(UnitCgroup { component, below });
            }
            rest = below;
        }
    }
}

impl UnitCgroup<'_> {
    fn is(&self, unit: &UnitName) -> bool {
        // systemd puts `_` before names that cgroupfs keeps for itself, such as `cpu.service`.
        let name = self.component.strip_prefix('_').unwrap_or(self.component);
        // Below a user's manager are that user's units, which must not pass for the manager itself.
        let own = !name.starts_with("user@") || ["", "init.scope"].contains(&self.below);
        name == unit.as_str() && own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_unit(manager: &str, path: &str, unit: &str) -> bool {
        let unit = unit.parse().unwrap();
        ManagerCgroup(manager.into()).unit_of(path).is_some_and(|found| found.is(&unit))
    }

    #[test]
    fn the_unified_line_says_the_cgroup() {
        let hybrid = "12:pids:/x\n1:name=systemd:/\n0::/system.slice/foo.service\n";
        assert_eq!(unified_path(hybrid), Some("/system.slice/foo.service"));
        assert_eq!(unified_path("1:name=systemd:/system.slice/foo.service\n"), None);
        assert_eq!(unified_path("0::\n"), None);
    }

    #[test]
    fn a_manager_that_is_in_cgroups_of_version_1_only_cannot_tell_units_apart() {
        let old = "2:pids:/init.scope\n1:name=systemd:/init.scope\n";
        for legacy in [old, &format!("{old}0::/\n"), "1:name=systemd:/outer/box/init.scope\n0::/\n"] {
            assert_eq!(Legacy::seen_in(legacy), Some(Legacy), "{legacy}");
        }
        // The last is a machine without systemd, on a hybrid host.
        for other in ["0::/init.scope\n", &format!("{old}0::/init.scope\n"), "", "1:name=systemd:/\n0::/\n"] {
            assert_eq!(Legacy::seen_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_peer_in_the_managers_own_cgroup_is_the_manager() {
        let is_at = |manager: &str, path| ManagerCgroup(manager.into()).is_at(path);
        assert!(is_at("", "/init.scope"));
        assert!(is_at(
            "/user.slice/user-0.slice/user@0.service",
            "/user.slice/user-0.slice/user@0.service/init.scope"
        ));
        for elsewhere in [
            "/init.scope/x",
            "/system.slice/init.scope",
            "/user.slice/user-0.slice/user@0.service/init.scope",
            "/",
        ] {
            assert!(!is_at("", elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_peer_in_the_units_cgroup_is_that_unit() {
        assert!(is_unit("", "/system.slice/foo.service", "foo.service"));
        assert!(is_unit("", "/my.slice/my-sub.slice/slc.service", "slc.service"));
        assert!(is_unit("", "/foo.service", "foo.service"));
        assert!(is_unit("", "/system.slice/foo.service/.control", "foo.service"));
        assert!(is_unit("", "/system.slice/_cpu.service", "cpu.service"));
        assert!(is_unit("/outer/box", "/outer/box/system.slice/foo.service", "foo.service"));
    }

    #[test]
    fn a_peer_elsewhere_is_not() {
        for path in [
            "/",
            "/system.slice",
            "/system.slice/",
            "/system.slice/forger.service",
            "/system.slice/forger.service/foo.service",
            "/system.slice/xfoo.service",
            "/system.slice/foo.service.d",
            "/system.slice/__foo.service",
            "/user.slice/user-0.slice/user@0.service/app.slice/foo.service",
            "/init.scope",
            "system.slice/foo.service",
        ] {
            assert!(!is_unit("", path, "foo.service"), "{path}");
        }
        assert!(!is_unit("/outer", "/system.slice/foo.service", "foo.service"));
        assert!(!is_unit("/outer", "/outerfoo.service", "foo.service"));
    }

    #[test]
    fn a_users_units_pass_for_their_manager_no_more_than_the_manager_for_them() {
        assert!(is_unit("", "/user.slice/user-0.slice/user@0.service", "user@0.service"));
        assert!(is_unit("", "/user.slice/user-0.slice/user@0.service/init.scope", "user@0.service"));
        assert!(!is_unit(
            "",
            "/user.slice/user-0.slice/user@0.service/app.slice/x.service",
            "user@0.service"
        ));
    }

    #[test]
    fn in_user_mode_the_unit_is_below_that_users_manager() {
        let manager = "/user.slice/user-7.slice/user@7.service";
        assert!(is_unit(manager, "/user.slice/user-7.slice/user@7.service/app.slice/x.service", "x.service"));
        assert!(!is_unit(
            manager,
            "/user.slice/user-8.slice/user@8.service/app.slice/x.service",
            "x.service"
        ));
        assert!(!is_unit(manager, "/system.slice/x.service", "x.service"));
    }

    proptest! {
        #[test]
        fn only_the_first_component_past_the_slices_counts(
            slices in proptest::collection::vec("[a-z]{1,4}\\.slice", 0..3),
            first in "[a-z]{1,4}\\.service", deeper in proptest::collection::vec("[a-z]{1,4}\\.(service|slice)", 0..3),
        ) {
            let components: Vec<String> = slices.into_iter().chain([first.clone()]).chain(deeper.clone()).collect();
            let path = format!("/{}", components.join("/"));
            prop_assert!(is_unit("", &path, &first));
            for other in deeper.iter().filter(|other| **other != first && other.ends_with(".service")) {
                prop_assert!(!is_unit("", &path, other));
            }
        }

        #[test]
        fn reading_a_cgroup_file_never_panics(text in "\\PC{0,80}") {
            if let Some(path) = unified_path(&text) { let _ = ManagerCgroup(String::new()).unit_of(path); }
        }
    }
}
