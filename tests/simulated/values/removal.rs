//! What leaves the configuration is kept no longer.

use serde_json::json;

use crate::helpers::wait;
use crate::host::Host;

#[test]
fn a_secret_that_leaves_the_configuration_leaves_the_cache() {
    let host = Host::new(&["a", "b"]);
    let both = host.config(json!({}), &[("a", json!({})), ("b", json!({}))]);
    let daemon = host.start(&both);
    assert!(daemon.ask("a").is_some() && daemon.ask("b").is_some());
    daemon.stop();
    let daemon = host.start(&both);
    let with_both = host.cache().unwrap().len();
    daemon.configure(&host.config(json!({}), &[("a", json!({}))]));
    daemon.reload();
    wait("one of them to go", || host.cache().is_some_and(|cache| cache.len() < with_both));
    daemon.configure(&host.config(json!({}), &[]));
    daemon.reload();
    wait("the last one to go", || host.cache().is_none());
    // And while the service was down.
    daemon.configure(&both);
    daemon.reload();
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    assert!(host.cache().is_some());
    let _daemon = host.start(&host.config(json!({}), &[]));
    wait("all of it to go", || host.cache().is_none());
}
