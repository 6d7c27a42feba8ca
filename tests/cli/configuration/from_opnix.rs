//! A configuration of OpNix.

use std::path::PathBuf;
use std::time::Duration;

use opnix::internals::Kind;
use opnix::internals::config::{MirrorFile, OnChange};

use super::{kept, paths, written};

#[test]
fn an_opnix_configuration_is_taken_unchanged() {
    let config = kept(&["opnix.json"]).unwrap();
    assert_eq!(config.policy.rules().count(), 0, "OpNix knows no units: nobody gets a credential");
    assert_eq!(
        paths(&config),
        ["/run/secrets/ssl/cert.pem", "/var/lib/caddy/key.pem", "/run/secrets/postgres/prod/password"]
    );
    assert_eq!(config.timing.refresh, Some(Duration::from_secs(6 * 3600)), "as often as OpNix polls");
    let [cert, key, password] = &config.files[..] else { panic!("{:?}", config.files) };

    let owned = |file: &MirrorFile| {
        format!("{}:{} {:04o}", file.owner, file.group.as_deref().unwrap_or("root"), file.mode)
    };
    assert_eq!(owned(cert), "root:root 0600");
    assert_eq!(owned(key), "caddy:ssl-cert 0440");
    assert_eq!(owned(password), "root:root 0640");

    let named = |file: &MirrorFile| file.entry.content.as_plain().unwrap().clone();
    assert_eq!((named(cert).kind, named(cert).section), (Kind::Field, None));
    assert_eq!((named(key).kind, named(key).section), (Kind::File, Some("tls".to_owned())));

    assert_eq!(key.symlinks, ["/etc/ssl/private/app.pem", "/srv/app/key.pem"].map(PathBuf::from));
    assert!(cert.symlinks.is_empty());
    let acted_on = |file: &MirrorFile| -> Vec<(String, OnChange)> {
        file.services.iter().map(|(unit, action)| (unit.to_string(), action.clone())).collect()
    };
    let restarted = |units: &[&str]| -> Vec<(String, OnChange)> {
        units.iter().map(|unit| ((*unit).to_owned(), OnChange::Restart)).collect()
    };
    // Those of `systemdIntegration` are concerned by every change.
    assert_eq!(acted_on(cert), restarted(&["caddy.service", "app.service"]));
    let own = ["caddy.service", "nginx.service", "app.v2.service", "vpn@home.service", "app.service"];
    assert_eq!(acted_on(key), restarted(&own));
    assert_eq!(
        acted_on(password),
        [
            ("app.service".to_owned(), OnChange::Signal("SIGHUP".parse().unwrap())),
            ("idle.service".to_owned(), OnChange::Reload),
            ("postgresql.service".to_owned(), OnChange::Restart),
            ("web.service".to_owned(), OnChange::Restart),
            ("caddy.service".to_owned(), OnChange::Restart),
        ]
    );
}

#[test]
fn words_in_a_path_are_replaced_by_variables_defaults_and_the_name() {
    let config = written(
        "words",
        &[r#"{"defaults": {"env": "prod", "service": "web"}, "secrets": [
            {"reference": "op://v/i/f", "path": "x/{env}/key"},
            {"reference": "op://v/i/f", "path": "/srv/{service}/{env}", "variables": {"service": "pg"}},
            {"name": "cert", "reference": "op://v/i/f", "path": "{service}/{name}.pem"},
            {"name": "key", "reference": "op://v/i/f", "path": "{name}", "variables": {"name": "other"}}],
          "templates": [{"name": "t", "template": "{{ op://v/i/f }}", "path": "{env}/{name}.env"}]}"#],
    )
    .unwrap();
    assert_eq!(
        paths(&config),
        [
            "/run/secrets/x/prod/key",
            "/srv/pg/prod",
            "/run/secrets/web/cert.pem",
            "/run/secrets/other",
            "/run/secrets/prod/t.env",
        ]
    );
}

/// Whoever reads a file is known all the same: who missed it is started.
#[test]
fn what_opnix_switches_off_is_off() {
    let told = |integrations: &[&str]| {
        let first = r#"{"secrets": [{"reference": "op://v/i/f", "path": "a", "services": {"app": {"signal": "SIGHUP"}}}]}"#;
        let more =
            integrations.iter().map(|integration| format!(r#"{{"systemdIntegration": {integration}}}"#));
        let texts: Vec<String> = std::iter::once(first.to_owned()).chain(more).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let config = written("switches", &texts).unwrap();
        let services = &config.files[0].services;
        let units: Vec<String> = services.iter().map(|(unit, _)| unit.to_string()).collect();
        (units, services.iter().any(|(_, action)| *action != OnChange::Nothing))
    };
    let app = || vec!["app.service".to_owned()];
    assert_eq!(told(&[]), (app(), true));
    assert_eq!(told(&["{}"]), (app(), true));
    for off in [r#"{"enable": false}"#, r#"{"restartOnChange": false}"#] {
        assert_eq!(told(&[off]), (app(), false), "{off}");
        // The last one that says so counts.
        assert_eq!(told(&[off, "{}"]), (app(), false), "{off}");
        let on = off.replace("false", "true");
        assert_eq!(told(&[off, &on]), (app(), true), "{off}");
    }
    let both = vec!["app.service".to_owned(), "web.service".to_owned()];
    assert_eq!(told(&[r#"{"enable": false, "services": ["web"]}"#]), (both, false));
}
