//! An account that changes at random, and what a name means in it at the moment.

use crate::simulators::account::{Account, FieldValue, Item, Vault};

pub const VAULTS: [&str; 3] = ["Ann", "Bob", "Cat"];
pub const ITEMS: [&str; 3] = ["One", "Two", "Six"];
/// One for each way in which a value is kept.
pub const FIELDS: [&str; 3] = ["kept", "now", "never"];

/// SplitMix64: the same numbers for the same seed.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % end as u64).unwrap()
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A value that no other field has or had: its item's id is never given again.
fn values(item: &mut Item, count: usize) {
    for field in &mut item.fields {
        field.value = FieldValue::Concealed(format!("{} of {}, {count}", field.label, item.id));
    }
}

fn make(account: &mut Account, vault: &str, title: &str) -> Item {
    let fields = FIELDS.map(|label| (label, FieldValue::Text(String::new())));
    account.add(vault, title, &fields);
    let vault = account.vaults.iter_mut().find(|known| known.name == vault).unwrap();
    let mut item = vault.items.pop().unwrap();
    values(&mut item, 0);
    item
}

pub fn filled() -> Account {
    let mut account = Account::empty();
    for vault in VAULTS {
        for title in ITEMS {
            let item = make(&mut account, vault, title);
            account.vault(vault).items.push(item);
        }
    }
    account
}

/// What the reference leads to; `None` for nothing, and for two things.
pub fn meaning(account: &Account, vault: &str, title: &str, label: &str) -> Option<String> {
    let vaults: Vec<&Vault> =
        account.vaults.iter().filter(|known| known.shared && known.name == vault).collect();
    let [vault] = vaults[..] else { return None };
    let items: Vec<&Item> = vault.items.iter().filter(|item| !item.archived && item.title == title).collect();
    let [item] = items[..] else { return None };
    let field = item.fields.iter().find(|field| field.label == label)?;
    match &field.value {
        FieldValue::Concealed(value) => Some(value.clone()),
        _ => None,
    }
}

/// Changes one thing, and says what.
pub fn change(account: &mut Account, chance: &mut Chance, step: usize) -> String {
    if chance.below(5) < 2
        && let Some(what) = mend(account)
    {
        return what;
    }
    let (first, second) = (chance.below(account.vaults.len()), chance.below(account.vaults.len()));
    let (name, other) = (account.vaults[first].name.clone(), account.vaults[second].name.clone());
    if chance.below(10) < 4 {
        return change_vault(account, chance, (first, second), step);
    }
    account.vaults[first].content_version += 1;
    account.vaults[second].content_version += 1;
    let (count, others) = (account.vaults[first].items.len(), account.vaults[second].items.len());
    if count == 0 || others == 0 {
        let title = chance.one(&ITEMS);
        let scratch = anew(account, first, title);
        account.vaults[first].items.push(scratch);
        return format!("a new {name}/{title}");
    }
    let (place, target) = (chance.below(count), chance.below(others));
    let title = account.vaults[first].items[place].title.clone();
    match chance.below(7) {
        0 => {
            let free =
                ITEMS.into_iter().find(|free| account.vaults[first].items.iter().all(|i| i.title != *free));
            let new = free.unwrap_or(if chance.below(2) == 0 { "Seven" } else { "One" });
            account.vaults[first].items[place].title = new.into();
            format!("{name}/{title} becomes {new}")
        }
        1 => {
            let theirs = account.vaults[second].items[target].title.clone();
            account.vaults[first].items[place].title = theirs.clone();
            account.vaults[second].items[target].title = title.clone();
            format!("{name}/{title} and {other}/{theirs} swap their titles")
        }
        2 | 3 => {
            let item = &mut account.vaults[first].items[place];
            item.archived = !item.archived;
            format!("{name}/{title} is archived: {}", item.archived)
        }
        4 => {
            account.vaults[first].items.remove(place);
            let new = anew(account, first, &title);
            account.vaults[first].items.push(new);
            format!("{name}/{title} is made anew")
        }
        5 => {
            let mut item = account.vaults[first].items.remove(place);
            if chance.below(2) == 0 {
                item = anew(account, second, &title);
            }
            account.vaults[second].items.push(item);
            format!("{name}/{title} moves to {other}")
        }
        _ => {
            values(&mut account.vaults[first].items[place], step);
            format!("{name}/{title} gets new values")
        }
    }
}

/// Makes one name mean something again, so that not all of them end up without a meaning.
fn mend(account: &mut Account) -> Option<String> {
    let free = VAULTS.into_iter().find(|free| account.vaults.iter().all(|vault| vault.name != *free));
    if let Some(vault) = account.vaults.iter_mut().find(|vault| !vault.shared) {
        vault.shared = true;
        return Some(format!("{} is shared again", vault.name));
    }
    if let Some(free) = free {
        let count = |name: &str| account.vaults.iter().filter(|vault| vault.name == name).count();
        let place =
            account.vaults.iter().position(|v| count(&v.name) > 1 || !VAULTS.contains(&&v.name[..]))?;
        account.vaults[place].name = free.into();
        return Some(format!("a vault gets the name {free}"));
    }
    for vault in &mut account.vaults {
        vault.content_version += 1;
        if let Some(item) = vault.items.iter_mut().find(|item| item.archived) {
            item.archived = false;
            return Some(format!("{}/{} is in use again", vault.name, item.title));
        }
        let free = ITEMS.into_iter().find(|free| vault.items.iter().all(|item| item.title != *free));
        let count = |title: &str| vault.items.iter().filter(|item| item.title == title).count();
        let place = vault.items.iter().position(|i| count(&i.title) > 1 || !ITEMS.contains(&&i.title[..]));
        if let (Some(free), Some(place)) = (free, place) {
            vault.items[place].title = free.into();
            return Some(format!("an item becomes {}/{free}", vault.name));
        }
    }
    None
}

/// An item of this title and a new id, which is in no vault yet.
fn anew(account: &mut Account, vault: usize, title: &str) -> Item {
    // By a name that no other vault has.
    let name = std::mem::replace(&mut account.vaults[vault].name, "scratch".into());
    let item = make(account, "scratch", title);
    account.vaults[vault].name = name;
    item
}

fn change_vault(
    account: &mut Account,
    chance: &mut Chance,
    (first, second): (usize, usize),
    step: usize,
) -> String {
    let (name, other) = (account.vaults[first].name.clone(), account.vaults[second].name.clone());
    match chance.below(4) {
        0 => {
            let free = VAULTS.into_iter().find(|free| account.vaults.iter().all(|vault| vault.name != *free));
            let new = free.map_or_else(|| format!("Old {step}"), str::to_owned);
            account.vaults[first].name.clone_from(&new);
            format!("{name} becomes {new}")
        }
        1 => {
            account.vaults[first].name.clone_from(&other);
            account.vaults[second].name.clone_from(&name);
            format!("{name} and {other} swap their names")
        }
        2 => {
            account.vaults.remove(first);
            account.vault("scratch");
            let new = account.vaults.len() - 1;
            for title in ITEMS {
                let item = anew(account, new, title);
                account.vaults[new].items.push(item);
            }
            account.vaults[new].name.clone_from(&name);
            format!("{name} is made anew")
        }
        _ => {
            let vault = &mut account.vaults[first];
            vault.shared = !vault.shared;
            format!("{name} is shared: {}", vault.shared)
        }
    }
}
