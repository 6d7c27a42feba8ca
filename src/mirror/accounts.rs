//! Who files are to belong to.

use std::collections::BTreeMap;

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::MirrorFile;
use crate::scope;

/// Who a file is to belong to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    #[cfg(test)]
    pub fn of_this_process() -> Self {
        Self { uid: Uid::effective(), gid: Gid::effective() }
    }

    pub fn uid(&self) -> Uid {
        self.uid
    }

    pub fn user_and_group(&self) -> (Uid, Gid) {
        (self.uid, self.gid)
    }

    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }
}

/// The users and groups of a configuration, looked up once.
pub struct Accounts {
    users: BTreeMap<String, Option<Uid>>,
    groups: BTreeMap<String, Option<Gid>>,
}

impl Accounts {
    pub fn look_up(files: &[MirrorFile]) -> Self {
        let user = |name: &str| match name.parse() {
            Ok(number) => Some(Uid::from_raw(number)),
            Err(_) => User::from_name(name).ok().flatten().map(|user| user.uid),
        };
        let group = |name: &str| match name.parse() {
            Ok(number) => Some(Gid::from_raw(number)),
            Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid),
        };
        let groups = files.iter().filter_map(|file| file.group.clone());
        Self {
            users: files.iter().map(|file| (file.owner.clone(), user(&file.owner))).collect(),
            groups: groups.map(|name| (name.clone(), group(&name))).collect(),
        }
    }

    pub fn of(&self, file: &MirrorFile) -> Result<Owner, String> {
        let place = &file.entry.place;
        let uid = match file.owner.as_str() {
            // The default, for a user who cannot give files away: the user itself.
            "root" if !scope::has_systems_manager() => Some(Uid::effective()),
            name => self.users.get(name).copied().flatten(),
        };
        // Not the owner's own group: everybody may be in that one.
        let gid = match &file.group {
            None => Some(Gid::effective()),
            Some(name) => self.groups.get(name).copied().flatten(),
        };
        if !scope::has_systems_manager() && uid.is_some_and(|uid| uid != Uid::effective()) {
            return Err(format!(
                "a user can write no file of {:?} ({place}): leave `owner` out, and it is the user's own",
                file.owner
            ));
        }
        let uid = uid.ok_or_else(|| {
            format!("there is no user {:?} ({place}): create it, or name another", file.owner)
        })?;
        let gid = gid.ok_or_else(|| {
            let name = file.group.as_deref().unwrap_or_default();
            format!("there is no group {name:?} ({place}): create it, or name another")
        })?;
        Ok(Owner { uid, gid })
    }
}
