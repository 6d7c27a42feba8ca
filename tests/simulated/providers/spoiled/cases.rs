//! Every way to spoil every member of an answer.

use serde_json::{Value, json};

use crate::simulators::hook::AGAIN;

pub struct Case {
    /// Which answer, and which member of it: a JSON pointer.
    pub document: String,
    pub at: String,
    pub kind: Kind,
    to: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Absent,
    Null,
    OtherType,
    /// Zero letters, or a number out of range.
    OddValue,
    /// A second time, with a value that nothing else has.
    Twice,
    /// A second time, with the value that the next entry of the list has.
    TwiceAsNext,
    TooLong,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Much,
    Little,
    Untried,
}

pub fn too_long() -> String {
    "x".repeat(1 << 20)
}

impl Case {
    /// `used` says of a member whether all ways are tried, or a few, or none.
    pub fn of(document: &str, content: &Value, used: fn(&str) -> Use) -> Vec<Self> {
        let mut places = Vec::new();
        walk(content, String::new(), &mut places);
        let ways = |at: &String| {
            let ways = match used(at) {
                Use::Much => ways(content, at),
                Use::Little => few_ways(content, at),
                Use::Untried => Vec::new(),
            };
            let ways = ways.into_iter();
            ways.map(|(kind, to)| (at.clone(), kind, to)).collect::<Vec<_>>()
        };
        let case = |(at, kind, to)| Self { document: document.into(), at, kind, to };
        places.iter().flat_map(ways).map(case).collect()
    }

    pub fn steps(&self) -> Vec<&str> {
        self.at.split('/').skip(1).collect()
    }

    pub fn spoil(&self, document: &mut Value) {
        let to = match self.kind {
            Kind::TooLong => Some(too_long().into()),
            _ => self.to.clone(),
        };
        let Some((parent, last)) = self.at.rsplit_once('/') else {
            *document = to.unwrap_or_default();
            return;
        };
        match (document.pointer_mut(parent), to) {
            (Some(Value::Object(members)), Some(to)) => {
                let again = matches!(self.kind, Kind::Twice | Kind::TwiceAsNext);
                let name = if again { format!("{last}{AGAIN}") } else { last.to_owned() };
                members.insert(name, to);
            }
            (Some(Value::Object(members)), None) => drop(members.remove(last)),
            (Some(Value::Array(entries)), Some(to)) => entries[last.parse::<usize>().unwrap()] = to,
            (Some(Value::Array(entries)), None) => drop(entries.remove(last.parse().unwrap())),
            _ => {}
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = self.to.as_ref().map(Value::to_string).unwrap_or_default();
        write!(f, "{} {} {:?} {}", self.document, self.at, self.kind, to.get(..60).unwrap_or(&to))
    }
}

fn walk(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| walk(member, format!("{at}/{name}"), places));
        }
        Value::Array(entries) => {
            let entries = entries.iter().enumerate();
            entries.for_each(|(number, entry)| walk(entry, format!("{at}/{number}"), places));
        }
        _ => {}
    }
    places.push(at);
}

/// `None`: the member is left out.
fn ways(document: &Value, at: &str) -> Vec<(Kind, Option<Value>)> {
    let value = document.pointer(at).unwrap();
    let mut ways = vec![(Kind::Null, Some(Value::Null)), (Kind::TooLong, None)];
    let others = [json!("text"), json!(7), json!([]), json!({}), json!([value]), json!({"id": value})];
    let others = others.into_iter().filter(|other| !same_type(other, value));
    ways.extend(others.map(|other| (Kind::OtherType, Some(other))));
    for odd in [json!(""), json!(-1), json!(1.5)] {
        let kind = if same_type(&odd, value) { Kind::OddValue } else { Kind::OtherType };
        ways.push((kind, Some(odd)));
    }
    if at.is_empty() {
        return ways;
    }
    ways.push((Kind::Absent, None));
    let (parent, _) = at.rsplit_once('/').unwrap();
    if document.pointer(parent).unwrap().is_object() {
        ways.push((Kind::Twice, Some(another(value))));
        ways.extend(next(document, at).map(|next| (Kind::TwiceAsNext, Some(next))));
    }
    ways
}

/// The first of each kind.
fn few_ways(document: &Value, at: &str) -> Vec<(Kind, Option<Value>)> {
    let mut seen = Vec::new();
    let mut ways = ways(document, at);
    ways.retain(|(kind, _)| {
        let new = !seen.contains(kind) && ![Kind::TwiceAsNext, Kind::TooLong].contains(kind);
        seen.push(*kind);
        new
    });
    ways
}

fn same_type(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

/// Another value of the same shape. In lists each entry has the id of the next, and no entry the right value.
fn another(value: &Value) -> Value {
    match value {
        Value::Null => json!("second"),
        Value::Bool(flag) => json!(!flag),
        Value::Number(_) => json!(77),
        Value::String(text) => json!(format!("{text}-second")),
        Value::Array(entries) => {
            let mut new = entries.clone();
            for (number, entry) in new.iter_mut().enumerate() {
                if let (Some(member), Some(id)) =
                    (entry.get_mut("id"), entries[(number + 1) % entries.len()].get("id"))
                {
                    *member = id.clone();
                }
                if let Some(member) = entry.get_mut("value") {
                    *member = json!("of the second list");
                }
            }
            Value::Array(new)
        }
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), another(member))).collect()
        }
    }
}

/// The same member of the next entry in the list, if it differs.
fn next(document: &Value, at: &str) -> Option<Value> {
    let steps: Vec<&str> = at.split('/').collect();
    let place = steps.iter().rposition(|step| step.parse::<usize>().is_ok())?;
    let entries = document.pointer(&steps[..place].join("/"))?.as_array()?;
    let number = (steps[place].parse::<usize>().unwrap() + 1) % entries.len();
    let rest: String = steps[place + 1..].iter().map(|step| format!("/{step}")).collect();
    let next = entries[number].pointer(&rest)?;
    (Some(next) != document.pointer(at)).then(|| next.clone())
}
