//! The service manager: how units are, and what is asked of it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::bus::{Argument, Bus, Value};
use super::exit_status;
use super::running::Load;
use crate::scope;

/// Where a service manager listens for its own user, in `/run` or the user's runtime directory, with or without a message bus.
const PRIVATE: &str = "systemd/private";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The exit status of a process that could not be given its credentials.
pub const CREDENTIALS: i128 = 243;

pub struct Manager(Bus);

/// A unit as it is now.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its name, whichever of its aliases was asked for.
    pub id: String,
    properties: HashMap<String, Value>,
}

/// A condition or assertion of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Such as `AssertPathExists`.
    pub kind: String,
    /// The opposite is to hold.
    pub negated: bool,
    pub parameter: String,
    /// It is enough if one of all that say this holds.
    pub is_one_of_several: bool,
    /// It was the reason, or one of the reasons, that the unit was not started.
    pub failed: bool,
}

/// The end of a job of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// As [`Manager::queue`] names it.
    pub job: String,
    pub unit: String,
    /// `done`, `assert`, `dependency` and so on.
    pub result: String,
}

impl Manager {
    /// To the system's service manager; for a user, and without root's rights, to the user's own.
    pub fn connect() -> io::Result<Self> {
        Bus::connect(&scope::runtime_directory().join(PRIVATE)).map(Self)
    }

    /// How the system is: `running`, `degraded`, `stopping` and so on.
    pub fn state(&mut self) -> io::Result<String> {
        self.property("SystemState")
    }

    /// Of systemd, as it says it itself, such as `257.8-1~deb13u2`.
    pub fn version(&mut self) -> io::Result<String> {
        self.property("Version")
    }

    fn property(&mut self, name: &str) -> io::Result<String> {
        let arguments = [Argument::Text(MANAGER), Argument::Text(name)];
        let answer = self.0.call(OBJECT, PROPERTIES, "Get", &arguments)?;
        answer.first().and_then(Value::text).map(str::to_owned).ok_or_else(unexpected)
    }

    /// Looks at a unit, under any of its names. One that is not in memory is read from its files.
    pub fn unit(&mut self, name: &str) -> io::Result<Unit> {
        let loaded = self.call("LoadUnit", &[Argument::Text(name)])?;
        let path = loaded.first().and_then(Value::text).ok_or_else(unexpected)?;
        let answer = self.0.call(path, PROPERTIES, "GetAll", &[Argument::Text("")])?;
        let entries = answer.first().ok_or_else(unexpected)?.list();
        let properties: HashMap<String, Value> = entries
            .iter()
            .filter_map(|entry| match entry.list() {
                [Value::Text(name), value] => Some((name.clone(), value.clone())),
                _ => None,
            })
            .collect();
        let id = properties.get("Id").and_then(Value::text).ok_or_else(unexpected)?.to_owned();
        Ok(Unit { id, properties })
    }

    /// The names of units in memory that are in one of these states, and match one of the patterns if there are any.
    pub fn list(&mut self, states: &[&str], patterns: &[&str]) -> io::Result<Vec<String>> {
        let arguments = [Argument::Texts(states), Argument::Texts(patterns)];
        let answer = self.call("ListUnitsByPatterns", &arguments)?;
        let units = answer.first().ok_or_else(unexpected)?.list();
        Ok(units.iter().filter_map(|unit| unit.list().first()?.text().map(str::to_owned)).collect())
    }

    /// Has a job for a unit queued, by one of the calls that take a unit and a mode, and does not wait for it. Returns its name.
    pub fn queue(&mut self, call: &str, unit: &str, mode: &str) -> io::Result<String> {
        let answer = self.call(call, &[Argument::Text(unit), Argument::Text(mode)])?;
        answer.first().and_then(Value::text).map(str::to_owned).ok_or_else(unexpected)
    }

    /// Forgets that a unit failed, and how often it was started.
    pub fn reset_failed(&mut self, unit: &str) -> io::Result<()> {
        self.call("ResetFailedUnit", &[Argument::Text(unit)]).map(drop)
    }

    /// Closes what systemd keeps open for a unit that does not run, so that it is not there when the unit runs again.
    pub fn close_stored(&mut self, unit: &str) -> io::Result<()> {
        self.call("CleanUnit", &[Argument::Text(unit), Argument::Texts(&["fdstore"])]).map(drop)
    }

    /// Sends a signal to the main process of a unit.
    pub fn kill(&mut self, unit: &str, signal: i32) -> io::Result<()> {
        let arguments = [Argument::Text(unit), Argument::Text("main"), Argument::Number(signal)];
        self.call("KillUnit", &arguments).map(drop)
    }

    /// Waits for the end of the next job.
    pub fn next_ended(&mut self) -> io::Result<Ended> {
        loop {
            let signal = self.0.next_signal()?;
            if let ("JobRemoved", [_, Value::Text(job), Value::Text(unit), Value::Text(result)]) =
                (signal.member.as_str(), &signal.body[..])
            {
                return Ok(Ended { job: job.clone(), unit: unit.clone(), result: result.clone() });
            }
        }
    }

    fn call(&mut self, method: &str, arguments: &[Argument<'_>]) -> io::Result<Vec<Value>> {
        self.0.call(OBJECT, MANAGER, method, arguments)
    }
}

impl Unit {
    fn text(&self, name: &str) -> &str {
        self.properties.get(name).and_then(Value::text).unwrap_or_default()
    }

    /// The texts of a property that is a list of them.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().filter_map(Value::text)
    }

    /// `active`, `inactive`, `failed` and so on.
    pub fn state(&self) -> &str {
        self.text("ActiveState")
    }

    /// The state of its kind of unit: `running`, `exited`, `auto-restart` and so on.
    pub fn sub_state(&self) -> &str {
        self.text("SubState")
    }

    /// `enabled`, `disabled`, `static`, `masked` and so on.
    pub fn file_state(&self) -> &str {
        self.text("UnitFileState")
    }

    /// The main process; 0: there is none.
    pub fn main_pid(&self) -> i128 {
        self.number("MainPID")
    }

    /// The program of its (last) `ExecStart=`.
    pub fn program(&self) -> Option<&str> {
        self.list("ExecStart").last()?.list().first()?.text()
    }

    /// The words of its (last) `ExecStart=`.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        let command = self.list("ExecStart").last().map_or(&[][..], Value::list);
        command.get(1).map_or(&[][..], Value::list).iter().filter_map(Value::text)
    }

    /// Whether it waits to be started again after a failure.
    pub fn waits_for_restart(&self) -> bool {
        self.sub_state().starts_with("auto-restart")
    }

    /// How it ended, as `systemctl status` shows it, such as `exit-code, 226/NAMESPACE`.
    pub fn end(&self) -> String {
        let status = self.number("ExecMainStatus");
        let end = match self.number("ExecMainCode") {
            1 if status != 0 => format!(", {}", exit_status::describe(status)),
            2 | 3 => format!(", status {status}"),
            _ => String::new(),
        };
        format!("{}{end}", self.result())
    }

    /// Whether it runs, so that it may go on with what it was given when it began to.
    pub fn is_running(&self) -> bool {
        !["inactive", "failed"].contains(&self.state()) && self.sub_state() != "exited"
    }

    /// How many descriptors systemd keeps open for it.
    pub fn stored(&self) -> i128 {
        self.number("NFileDescriptorStore")
    }

    /// Why it failed.
    pub fn result(&self) -> &str {
        self.text("Result")
    }

    /// When it last ended after it had been up, in microseconds of systemd's clock; 0: it has not been up.
    pub fn ran_until(&self) -> i128 {
        self.number("ActiveExitTimestampMonotonic")
    }

    /// How its last start failed, if it is down by that, or about to be started again: `exit-code, 226/NAMESPACE`.
    pub fn start_failure(&self) -> Option<String> {
        // What it needs is started before it.
        let is_down = ["activating", "deactivating", "failed"].contains(&self.state())
            || self.state() == "inactive" && self.has_job();
        if !is_down || ["", "success"].contains(&self.result()) {
            return None;
        }
        Some(self.end())
    }

    pub fn has_job(&self) -> bool {
        self.properties.get("Job").and_then(|job| job.list().first()?.number()).is_some_and(|id| id != 0)
    }

    /// Whether there is such a unit, and an administrator lets it be started.
    pub fn may_start(&self) -> bool {
        self.text("LoadState") == "loaded"
            && self.properties.get("CanStart") != Some(&Value::Flag(false))
            && !["disabled", "masked", "masked-runtime"].contains(&self.file_state())
    }

    pub fn can_reload(&self) -> bool {
        self.properties.get("CanReload") == Some(&Value::Flag(true))
    }

    pub fn is_known(&self) -> bool {
        self.text("LoadState") != "not-found"
    }

    pub fn is_masked(&self) -> bool {
        self.text("LoadState") == "masked"
    }

    /// Whether its files are other ones than those that it was loaded from.
    pub fn is_stale(&self) -> bool {
        self.properties.get("NeedDaemonReload") == Some(&Value::Flag(true))
    }

    /// Its main file, if it has one.
    pub fn file(&self) -> Option<&str> {
        Some(self.text("FragmentPath")).filter(|path| !path.is_empty())
    }

    /// What it has by `LoadCredential=` and `LoadCredentialEncrypted=`.
    pub fn loads(&self) -> Vec<Load> {
        let of = |(property, is_encrypted)| {
            self.list(property).iter().filter_map(move |credential| match credential.list() {
                [Value::Text(id), Value::Text(source)] => {
                    Some(Load { id: id.clone(), source: source.clone(), is_encrypted })
                }
                _ => None,
            })
        };
        [("LoadCredential", false), ("LoadCredentialEncrypted", true)].into_iter().flat_map(of).collect()
    }

    fn number(&self, name: &str) -> i128 {
        self.properties.get(name).and_then(Value::number).unwrap_or(0)
    }

    /// When it was last started, in microseconds of systemd's clock; 0: never since the machine booted, as far as systemd
    /// remembers. A start that fails by an assertion or a dependency is none.
    pub fn started_at(&self) -> i128 {
        self.number("InactiveExitTimestampMonotonic")
    }

    /// When somebody last had it started, by the same clock, whatever came of that.
    pub fn tried_at(&self) -> i128 {
        let tests = ["ConditionTimestampMonotonic", "AssertTimestampMonotonic"].map(|name| self.number(name));
        tests.into_iter().fold(self.started_at(), i128::max)
    }

    /// When it was last started, in seconds since 1970, by the wall clock as it was then, or as it is now if it was set back since.
    pub fn started(&self) -> u64 {
        let since = self.date("InactiveExitTimestamp").duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }

    /// When it last became inactive, or failed, so that whatever came later has a later date: likewise.
    pub fn ended_at(&self) -> SystemTime {
        self.date("InactiveEnterTimestamp")
    }

    fn date(&self, name: &str) -> SystemTime {
        let micros = |name: &str| Duration::from_micros(u64::try_from(self.number(name)).unwrap_or(0));
        let then = SystemTime::UNIX_EPOCH + micros(name);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let ago = now.saturating_sub(micros(&format!("{name}Monotonic")));
        SystemTime::now().checked_sub(ago).map_or(then, |date| date.min(then))
    }

    /// Its conditions and assertions.
    pub fn tests(&self) -> Vec<Test> {
        let kinds = [("Conditions", "ConditionResult"), ("Asserts", "AssertResult")].into_iter();
        let all = kinds.flat_map(|(name, result)| {
            let all_hold = self.properties.get(result) == Some(&Value::Flag(true));
            self.list(name).iter().map(move |test| (test, all_hold))
        });
        all.filter_map(|(test, all_hold)| match test.list() {
            [
                Value::Text(kind),
                Value::Flag(is_one_of_several),
                Value::Flag(negated),
                Value::Text(parameter),
                Value::Number(state),
            ] => Some(Test {
                kind: kind.clone(),
                negated: *negated,
                parameter: parameter.clone(),
                is_one_of_several: *is_one_of_several,
                failed: *state < 0 && !all_hold,
            }),
            _ => None,
        })
        .collect()
    }

    fn list(&self, name: &str) -> &[Value] {
        self.properties.get(name).map_or(&[][..], Value::list)
    }

    /// Where it loads the credential of this name from, by the last word of `LoadCredential=` or `LoadCredentialEncrypted=`.
    pub fn credential(&self, property: &str, name: &str) -> Option<PathBuf> {
        self.list(property).iter().find_map(|credential| match credential.list() {
            [Value::Text(id), Value::Text(path)] if id == name => Some(PathBuf::from(path)),
            _ => None,
        })
    }

    /// Whether it has the credential of this name by itself, or from the system's (`ImportCredential=`), where the file that it loads
    /// it from is not there.
    pub fn has_another_credential(&self, name: &str) -> bool {
        let set = |property: &str, nothing: &[Value]| {
            self.list(property).iter().any(|credential| match credential.list() {
                [Value::Text(id), bytes] => id == name && bytes.list() != nothing,
                _ => false,
            })
        };
        let imported = |pattern: &str| match pattern.split_once('*') {
            Some((start, _)) => name.starts_with(start),
            None => pattern == name,
        };
        set("SetCredential", &[Value::Number(b'\n'.into())])
            || set("SetCredentialEncrypted", &[])
            || self.texts("ImportCredential").any(imported)
    }

    /// The files of `EnvironmentFile=` that it does not start without.
    pub fn environment_files(&self) -> impl Iterator<Item = &str> {
        self.list("EnvironmentFiles").iter().filter_map(|file| match file.list() {
            [Value::Text(path), Value::Flag(false)] => Some(path.as_str()),
            _ => None,
        })
    }

    /// Whether it failed because one of its processes was not given its credentials, or nothing is known against that: systemd
    /// forgets how all processes but the main one ended when it reads its unit files anew.
    pub fn may_have_lacked_credentials(&self) -> bool {
        let ends = self.ends();
        self.result() == "exit-code"
            && (self.lacked_credentials() || ends.iter().all(|(_, status)| *status == 0))
    }

    /// Whether it failed because one of its processes was not given its credentials.
    pub fn lacked_credentials(&self) -> bool {
        self.result() == "exit-code" && self.ends().iter().any(|(_, status)| *status == CREDENTIALS)
    }

    /// How its processes ended, with code and status, as far as that is known.
    fn ends(&self) -> Vec<(i128, i128)> {
        let is_command = |name: &str| name.starts_with("Exec");
        let commands =
            self.properties.iter().filter(|(name, _)| is_command(name)).flat_map(|(_, value)| value.list());
        let ends = commands.filter_map(|command| match command.list() {
            [.., Value::Number(code), Value::Number(status)] => Some((*code, *status)),
            _ => None,
        });
        let mut ends: Vec<(i128, i128)> = ends.filter(|(code, _)| *code != 0).collect();
        ends.extend(
            Some((self.number("ExecMainCode"), self.number("ExecMainStatus"))).filter(|(code, _)| *code != 0),
        );
        ends
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the service manager's answer is not understood")
}

#[cfg(test)]
impl Unit {
    /// As the service manager would tell of it.
    pub fn made_up(id: &str, properties: &[(&str, Value)]) -> Self {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { id: id.to_owned(), properties }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_start_failed_is_said_as_systemctl_says_it() {
        let failure = |state: &str, result: &str, [code, status, job]: [i128; 3]| {
            let text = |text: &str| Value::Text(text.into());
            let properties = [
                ("ActiveState", text(state)),
                ("Result", text(result)),
                ("ExecMainCode", Value::Number(code)),
                ("ExecMainStatus", Value::Number(status)),
                ("Job", Value::List(vec![Value::Number(job)])),
            ];
            Unit::made_up("opnix.service", &properties).start_failure()
        };
        assert_eq!(
            failure("activating", "exit-code", [1, 226, 0]).as_deref(),
            Some("exit-code, 226/NAMESPACE")
        );
        assert_eq!(failure("failed", "exit-code", [1, 78, 0]).as_deref(), Some("exit-code, status 78"));
        assert_eq!(failure("activating", "signal", [2, 9, 0]).as_deref(), Some("signal, status 9"));
        assert_eq!(failure("failed", "resources", [0, 0, 0]).as_deref(), Some("resources"));
        assert_eq!(failure("inactive", "exit-code", [1, 203, 5]).as_deref(), Some("exit-code, 203/EXEC"));
        // It is being started, was stopped, or runs.
        assert_eq!(failure("activating", "success", [1, 226, 0]), None);
        assert_eq!(failure("inactive", "exit-code", [1, 203, 0]), None);
        assert_eq!(failure("active", "exit-code", [1, 203, 0]), None);
    }
}
