//! Who has the name of a unit and is none.

use std::time::Duration;

use super::{AT_ONCE, CLIENT, Client, REFUSAL, cached, ends, starts_soon};
use crate::machine::Machine;
use crate::opnix::*;
use crate::strace::Strace;

/// What it has read so far would be a valid credential: so it must be sure that it is no unit's own request that is closed.
pub fn a_forger_that_does_not_read_is_closed_on_record_and_a_users_unit_never(machine: &Machine) {
    const TIME_TO_READ: Duration = Duration::from_secs(10);
    cached(machine);
    // A unit of root's own service manager: it has uid 0, and a name that no system unit has.
    machine.write("/run/client.py", CLIENT, "0644");
    machine.write(
        "/run/systemd/user/holder.service",
        "[Service]\nStandardOutput=truncate:/run/said-holder\n\
         ExecStart=python3 /run/client.py /unit/holder.service/key 1 /run/holder.go\n",
        "0644",
    );
    let user = |verb: &str| {
        format!(
            "XDG_RUNTIME_DIR=/run/user/0 systemctl --user daemon-reload; XDG_RUNTIME_DIR=/run/user/0 systemctl --user {verb} holder.service"
        )
    };
    machine.sh("rm -f /run/said-holder /run/holder.go; systemctl start user@0.service").ok();
    machine.sh(&user("start")).ok();
    let holder = || machine.sh("cat /run/said-holder || true").text();
    machine.wait("the user's unit to connect", || holder().contains("connected"), LONG);

    let forger = Client::start(machine, "forger", &[], ("/unit/victim.service/key", 1, "/run/never"));
    machine.wait("the forger's connection to be closed", || !forger.ended().is_empty(), 2 * TIME_TO_READ);
    let (bytes, seconds) = forger.ended()[0];
    assert!(bytes < REFUSAL, "it read nothing of it in time: {bytes}");
    assert!(seconds > TIME_TO_READ.as_secs_f64() / 2.0, "it had time to read: {seconds}");
    let closed = machine.journal(&[&kind("12")]);
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(closed[0]["OPNIX_REASON"].as_str().is_some_and(|reason| !reason.is_empty()), "{closed:?}");
    // The other one has had as long as that, and a little longer.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(holder(), "connected 1");
    machine.write("/run/holder.go", "", "0644");
    machine.wait("the end of its refusal", || !ends(&holder()).is_empty(), LONG);
    assert_eq!(ends(&holder())[0].0, REFUSAL);
    machine.sh(&user("stop")).ok();
    machine.systemctl(&["stop", "user@0.service"]).ok();
}

/// A drop-in may open the socket to others.
pub fn another_user_is_refused_or_closed(machine: &Machine) {
    cached(machine);
    let _open = Lines::of(machine, "opnix.socket", "[Socket]\nSocketMode=0666\n");
    stop(machine);
    machine.systemctl(&["start", "opnix.socket"]).ok();
    let nobody = ["User=nobody"];
    let named = Client::start(machine, "named", &nobody, ("/unit/victim.service/key", 1, AT_ONCE));
    let unnamed = Client::start(machine, "unnamed", &nobody, ("", 1, AT_ONCE));
    for (client, bytes) in [(&named, REFUSAL), (&unnamed, 0)] {
        machine.wait("its end", || !client.ended().is_empty(), LONG);
        assert_eq!(client.ended()[0].0, bytes, "{}", client.unit);
    }
}

/// Nobody may fill the journal through us.
pub fn forged_requests_in_a_loop_are_a_few_records_and_a_count(machine: &Machine) {
    const COUNT: usize = 5_000;
    cached(machine);
    let forger = format!(
        "import socket\n\
         for number in range({COUNT}):\n\
         \x20   s = socket.socket(socket.AF_UNIX); s.bind('\\0%016x/unit/victim.service/key' % number)\n\
         \x20   s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR)\n\
         \x20   assert s.recv(1) == b'\\0'; s.close()\n"
    );
    machine.write("/run/forger.py", forger, "0644");
    machine.sh("systemd-run --quiet --wait --pipe --collect --unit=forger python3 /run/forger.py").ok();
    let records = || machine.journal(&[&kind("02"), "OPNIX_UNIT=victim.service", "OPNIX_CHECK=peer"]);
    // A record that was written by now is in the journal before that of a later start.
    starts_soon(machine, "new@1.service", &value("new"));
    machine.wait(
        "the later start",
        || !machine.journal(&[&kind("01"), "OPNIX_UNIT=new@1.service"]).is_empty(),
        LONG,
    );
    let said = records();
    assert!((1..=5).contains(&said.len()), "{} records", said.len());
    let reason = said[0]["OPNIX_REASON"].as_str().unwrap_or_default();
    assert!(reason.contains("/system.slice/forger.service"), "{reason}");
    // The rest is told when the minute is over, or when the service ends.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    let repeated = || {
        let count = |record: &serde_json::Value| record["OPNIX_REPEATED"].as_str()?.parse::<usize>().ok();
        machine.journal(&[]).iter().filter_map(count).sum::<usize>()
    };
    machine.wait("the count", || repeated() >= COUNT - 5, LONG);
    assert!(repeated() <= COUNT, "{}", repeated());
}

/// By the number of its cgroup, where the kernel tells that (Linux 6.13) and the unit's directory can be seen at its place; else by
/// the path. Whoever has only the unit's name has neither.
pub fn a_unit_is_recognized_by_the_number_or_the_path_of_its_cgroup(machine: &Machine) {
    let release = machine.run(&["uname", "-r"]).ok();
    let mut numbers =
        release.split(|other: char| !other.is_ascii_digit()).filter_map(|part| part.parse().ok());
    let kernel: (u32, u32) = (numbers.next().expect("a number"), numbers.next().expect("another"));
    cached(machine);
    for (lines, sees_directories) in [("", true), ("[Service]\nInaccessiblePaths=/sys/fs/cgroup\n", false)] {
        let _lines = Lines::of(machine, "opnix.service", lines);
        machine.systemctl(&["restart", "opnix.service"]).ok();
        for (unit, name, is_in_system_slice) in
            [("quick.service", "key", true), ("new@1.service", "new", false)]
        {
            // Then it is answered from memory.
            starts_soon(machine, unit, &value(name));
            let pids = machine.processes("opnix.service");
            let watched: Vec<Strace> =
                pids.into_iter().map(|pid| Strace::process(pid, "trace=openat")).collect();
            starts_soon(machine, unit, &value(name));
            let reads_path = watched.into_iter().any(|strace| strace.end(false).text.contains("/cgroup\""));
            let by_number = kernel >= (6, 13) && sees_directories && is_in_system_slice;
            assert_eq!(reads_path, !by_number, "{unit} on Linux {release}, with {lines:?}");
        }
        let forger = Client::start(machine, "forger", &[], ("/unit/quick.service/key", 1, AT_ONCE));
        machine.wait("its end", || !forger.ended().is_empty(), LONG);
        assert_eq!(forger.ended()[0].0, REFUSAL, "with {lines:?}");
    }
}
