//! Who reads the cache while it is written.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::service::{Service, judge, refresh};
use crate::machine::Machine;

const REFRESHES: u64 = 200;
const READERS: usize = 2;

pub fn readers_of_the_cache_always_see_a_whole_one(_: &Machine) {
    let service = Service::new("readers");
    let daemon = service.start_with(0);
    let done = AtomicBool::new(false);
    let (cache, done) = (service.cache(), &done);
    let read = || {
        let mut reads = 0_u64;
        let mut last = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            let content = fs::read(&cache).map_err(|why| why.to_string())?;
            reads += 1;
            // Not at the writer's expense.
            thread::sleep(Duration::from_micros(rand::random_range(0..300)));
            if content == last.1 {
                continue;
            }
            let (number, _) = judge(&content)?;
            // The new one took the old one's place: that does not come back.
            if number < last.0 || number > REFRESHES {
                return Err(format!("{number} after {}", last.0));
            }
            last = (number, content);
        }
        Ok::<_, String>(reads)
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        for number in 1..=REFRESHES {
            service.set(number);
            if let Err(why) = refresh(&daemon) {
                done.store(true, Ordering::Relaxed);
                panic!("{why}");
            }
            if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let reads = reader.join().expect("a reader does not panic").expect("a whole cache");
            assert!(reads > REFRESHES, "no more than {reads} reads");
        }
    });
    let at_last = judge(&fs::read(&cache).expect("the cache"));
    assert_eq!(at_last.map(|(number, _)| number), Ok(REFRESHES));
}
