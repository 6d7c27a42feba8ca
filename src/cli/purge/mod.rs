//! `opnix purge`: takes everything of opnix's secrets from this machine.

mod closed;
mod places;
mod units;

use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::{ConfigArguments, Exit, fail};
use crate::cli::output::{complain, say};
use crate::config::{self, Config};
use crate::counted::counted;
use crate::mirror::mount;
use crate::mirror::traces::{Kind, REMEMBERED, Trace, Traces};
use crate::systemd::{PURGED, UNPURGE};
use units::Units;

/// Take everything of opnix's secrets from this machine: from memory, from files, and from the disk
///
/// First opnix is closed: from then on, and after a reboot, systemd starts none of its units, until you remove
/// /etc/opnix/purged. Its sockets and services are stopped. Then go the files that opnix wrote, wherever they are, if they
/// are still what it wrote; the memory at /run/secrets; what it remembers; the sealed cache; and the key of the cache.
/// The configuration stays, and so does the token, unless --token is given. Units that run keep what they were given:
/// they are named, with the command that stops them. At the end it looks at all of it again, and names what
/// is left. It can be run again at any time.
#[derive(clap::Args)]
pub struct Arguments {
    /// Take the token as well
    #[arg(long)]
    token: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Only stop opnix's units, so that nobody who waits is started with an empty secret: what `systemd/install --uninstall` runs
    #[arg(long, conflicts_with_all = ["token", "dry_run"])]
    stop: bool,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// What is to go, and what is in the way of it.
struct Purge {
    units: Units,
    traces: Traces,
    token: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    if !Uid::effective().is_root() {
        return fail(Exit::Denied, "this takes root: sudo opnix purge");
    }
    let config = config::load_from_anybody(&arguments.config.config).ok();
    if arguments.stop {
        let troubles = Units::find(config.as_ref()).stop();
        troubles.iter().for_each(|trouble| complain!("opnix: {trouble}"));
        return if troubles.is_empty() { Exit::Ok } else { Exit::Unavailable };
    }
    let purge = Purge {
        units: Units::find(config.as_ref()),
        traces: Traces::find(config.as_ref(), &closed::others()),
        token: arguments.token,
    };
    if arguments.dry_run {
        purge.tell();
        return Exit::Ok;
    }
    if !arguments.yes {
        purge.tell();
        if !io::stdin().is_terminal() {
            return fail(Exit::Usage, "nothing was done: where nobody can be asked this takes --yes");
        }
        say!("Type \"yes\" to do it:");
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_err() || answer.trim() != "yes" {
            return fail(Exit::Usage, "nothing was done");
        }
    }
    purge.go(config.as_ref())
}

impl Purge {
    /// What would be done, now.
    fn tell(&self) {
        say!("closes opnix: {PURGED} keeps systemd from starting any unit of it");
        match self.units.running() {
            Ok(running) => running.iter().for_each(|unit| say!("stops {unit}")),
            Err(error) => say!("cannot see what runs: systemd does not answer: {error}"),
        }
        let mounted = mount::mounted().unwrap_or_default();
        for place in &mounted {
            say!("unmounts {}, with all that is in it", place.display());
        }
        let is_in_memory = |path: &Path| mounted.iter().any(|place| path.starts_with(place));
        let traces = self.traces.look();
        for Trace { path, kind } in traces.iter().filter(|trace| !is_in_memory(&trace.path)) {
            match kind {
                Kind::Ours => say!("removes {}", path.display()),
                other => say!("leaves {}: {}", path.display(), described(other)),
            }
        }
        for place in self.places() {
            say!("removes {}", place.display());
        }
        self.tell_what_stays();
        if let Err(error) = self.tell_who_holds() {
            say!("cannot see which units hold credentials: {error}");
        }
        for doubt in &self.traces.doubts {
            say!("cannot know all files that opnix wrote: {doubt}");
        }
    }

    /// What is to be removed besides files and memory.
    fn places(&self) -> Vec<PathBuf> {
        let mut places = places::all();
        places.extend(REMEMBERED.map(PathBuf::from).into_iter().filter(|path| places::is_there(path)));
        if self.token {
            places.extend(places::tokens());
        }
        places
    }

    fn tell_what_stays(&self) {
        for token in places::tokens().iter().filter(|_| !self.token) {
            say!("leaves the token, {}: --token takes it as well", token.display());
        }
        let [file, directory] = [config::DEFAULT_PATH, config::DEFAULT_DIRECTORY];
        for path in [file, directory].iter().filter(|path| Path::new(path).exists()) {
            say!("leaves the configuration, {path}: it holds no secret");
        }
    }

    /// Returns whether anybody does.
    fn tell_who_holds(&self) -> io::Result<bool> {
        let holders = self.units.holders()?;
        if !holders.is_empty() {
            let holders = holders.join(" ");
            say!(
                "still held in /run/credentials, by units that run, until they stop: systemctl stop {holders}"
            );
        }
        Ok(!holders.is_empty())
    }

    fn go(&self, config: Option<&Config>) -> Exit {
        let mut left: Vec<String> = Vec::new();
        let mut note = |what: String| {
            complain!("opnix: {what}");
            left.push(what);
        };
        // Once opnix is closed, a service that fails is not started again, and systemd lets go of who waits for it.
        match self.units.end_those_that_wait() {
            Ok(None) => {}
            Ok(Some(trouble)) => {
                return fail(Exit::Unavailable, format_args!("nothing was taken: {trouble}"));
            }
            Err(error) => {
                return fail(
                    Exit::Unavailable,
                    format_args!("nothing was taken: systemd does not answer: {error}"),
                );
            }
        }
        // Nothing that is stopped comes back by a unit that asks.
        match closed::close(&[]) {
            Ok(()) => say!("closed opnix: {PURGED} keeps systemd from starting any unit of it"),
            Err(error) => note(format!("opnix can be started again: {PURGED}: {error}")),
        }
        self.units.stop().into_iter().for_each(&mut note);
        for place in mount::mounted().unwrap_or_default() {
            say!("unmounting {}", place.display());
        }
        mount::take_away().into_iter().for_each(&mut note);
        // Stopping the mirror may have changed what it remembers: what it wrote last is in there.
        let traces = Traces::find(config, &closed::others());
        let ours: Vec<Trace> = traces.look().into_iter().filter(|trace| trace.kind == Kind::Ours).collect();
        let remaining = traces.remove();
        let is_left = |path: &Path| remaining.iter().any(|trace| trace.path == path);
        for Trace { path, .. } in ours.iter().filter(|trace| !is_left(&trace.path)) {
            say!("removed {}", path.display());
        }
        for Trace { path, kind } in &remaining {
            let what = format!("left {}: {}", path.display(), described(kind));
            // What somebody else wrote is none of opnix's.
            if *kind == Kind::Others { say!("{what}") } else { note(what) }
        }
        traces.doubts.iter().for_each(|doubt| {
            note(format!(
                "not all files that opnix wrote are known: {doubt}; look at `path` in {}, then remove it",
                config::DEFAULT_PATH
            ));
        });
        let others = remaining.iter().filter(|trace| trace.kind == Kind::Others);
        if let Err(error) = closed::close(&others.map(|trace| trace.path.clone()).collect::<Vec<_>>()) {
            note(format!("that it is closed cannot be written down: {PURGED}: {error}"));
        }
        let knows_all = remaining.iter().all(|trace| trace.kind == Kind::Others) && traces.doubts.is_empty();
        for place in self.places() {
            // What it remembers tells the next purge which files those are.
            if !knows_all && REMEMBERED.iter().any(|remembered| place == Path::new(remembered)) {
                continue;
            }
            match places::remove(&place) {
                Ok(()) => say!("removed {}", place.display()),
                Err(error) => note(format!("cannot remove {}: {error}", place.display())),
            }
        }
        self.look_again().into_iter().for_each(&mut note);
        let holds = self.tell_who_holds().unwrap_or_else(|error| {
            note(format!("which units hold credentials cannot be seen: {error}"));
            false
        });
        self.tell_what_stays();
        say!("to have opnix back: {UNPURGE}");
        match (left.len(), holds) {
            (0, false) => {
                say!("purged: looked at all of it again, and nothing is left");
                Exit::Ok
            }
            (0, true) => fail(
                Exit::Unavailable,
                "all is gone but what units that run were given: stop them, and run this again",
            ),
            (many, _) => {
                fail(Exit::Unavailable, format_args!("not all is gone: {} above", counted(many, "line")))
            }
        }
    }

    /// What is there although it was removed, or came back.
    fn look_again(&self) -> Vec<String> {
        let unseen =
            |error: io::Error| vec![format!("what runs cannot be seen: systemd does not answer: {error}")];
        let still = |units: Vec<&str>| units.iter().map(|unit| format!("{unit} still runs")).collect();
        let mut there: Vec<String> = self.units.running().map_or_else(unseen, still);
        let open = self.units.open().unwrap_or_else(|error| {
            there.extend(unseen(error));
            Vec::new()
        });
        if !open.is_empty() {
            let open = open.join(" ");
            there.push(format!(
                "nothing keeps systemd from starting {open} again, by unit files that are older or somebody else's: \
                 systemctl daemon-reload; if that does not help, systemctl mask {open}"
            ));
        }
        match mount::mounted() {
            Ok(places) => {
                there.extend(places.iter().map(|place| format!("{} is still mounted", place.display())))
            }
            Err(error) => there.push(format!("what is mounted cannot be looked at: {error}")),
        }
        let remembered = |place: &PathBuf| REMEMBERED.iter().any(|path| place == Path::new(path));
        let places = self.places().into_iter().filter(|place| !remembered(place));
        there.extend(places.map(|place| format!("{} is still there", place.display())));
        there
    }
}

fn described(kind: &Kind) -> String {
    match kind {
        Kind::Ours => "opnix wrote it".to_owned(),
        Kind::Others => "it is not what opnix wrote any more".to_owned(),
        Kind::Copy => "somebody else wrote it, and the secret is in it: remove it yourself".to_owned(),
        Kind::Unsure => {
            "it may be a secret that opnix wrote, and was changed since: remove it yourself".to_owned()
        }
        Kind::Strange => {
            "the configuration names it, and whether opnix wrote it is not known: look at it".to_owned()
        }
        Kind::Trouble(why) => why.clone(),
    }
}
