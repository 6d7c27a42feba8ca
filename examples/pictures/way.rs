//! The way of a secret from 1Password to `$CREDENTIALS_DIRECTORY`.

use super::theme::{Face, Picture, Theme};

pub fn draw(theme: &'static Theme) -> String {
    let title = "The way of a secret: 1Password, opnix.service with memory and a sealed cache, the socket /run/opnix/creds.sock, \
                 systemd, and the unit's $CREDENTIALS_DIRECTORY; beside it opnix-mirror.service, which writes files to /run/secrets";
    let mut picture = Picture::new(theme, 960, 330, title);
    let (p, theme) = (&mut picture, theme);
    node(p, (20.0, 60.0, 160.0, 80.0), "1Password", &["service account,", "or Connect server"]);
    p.arrow((180.0, 100.0), (240.0, 100.0), theme.blue);
    p.text((210.0, 90.0), "middle", theme.faint, (Face::Plain, 11.0), "HTTPS", 56.0);
    service(p);
    p.arrow((460.0, 100.0), (508.0, 100.0), theme.blue);
    p.rect((508.0, 80.0, 190.0, 40.0), theme.page, theme.blue);
    p.text((603.0, 105.0), "middle", theme.blue, (Face::Mono, 13.0), "/run/opnix/creds.sock", 180.0);
    p.arrow((698.0, 100.0), (746.0, 100.0), theme.blue);
    node(
        p,
        (746.0, 60.0, 194.0, 80.0),
        "systemd (PID 1)",
        &["asks when a unit starts,", "and waits for the answer"],
    );
    p.arrow((843.0, 140.0), (843.0, 222.0), theme.blue);
    unit(p);
    p.arrow((603.0, 120.0), (603.0, 222.0), theme.violet);
    node(
        p,
        (508.0, 222.0, 190.0, 80.0),
        "opnix-mirror.service",
        &["asks as systemd does,", "and keeps files current"],
    );
    p.arrow((508.0, 262.0), (460.0, 262.0), theme.violet);
    p.rect((240.0, 222.0, 220.0, 80.0), theme.fill, theme.line);
    p.text((350.0, 248.0), "middle", theme.text, (Face::Mono, 13.0), "/run/secrets/…", 200.0);
    p.text(
        (350.0, 269.0),
        "middle",
        theme.faint,
        (Face::Plain, 12.0),
        "for software that reads files",
        216.0,
    );
    p.text((350.0, 288.0), "middle", theme.faint, (Face::Plain, 12.0), "in memory", 200.0);
    picture.done()
}

fn node(p: &mut Picture, place: (f64, f64, f64, f64), name: &str, words: &[&str]) {
    let theme = p.theme;
    let (x, y, width, _) = place;
    p.rect(place, theme.fill, theme.line);
    p.text((x + width / 2.0, y + 26.0), "middle", theme.text, (Face::Bold, 13.0), name, width - 8.0);
    for (number, words) in words.iter().enumerate() {
        let at = (x + width / 2.0, y + 47.0 + 18.0 * number as f64);
        p.text(at, "middle", theme.faint, (Face::Plain, 12.0), words, width - 4.0);
    }
}

fn service(p: &mut Picture) {
    let theme = p.theme;
    p.rect((240.0, 24.0, 220.0, 152.0), theme.fill, theme.line);
    p.text((350.0, 50.0), "middle", theme.text, (Face::Bold, 13.0), "opnix.service", 200.0);
    for (y, name, words) in [
        (64.0, "values in memory", "served without the network"),
        (118.0, "sealed cache on disk", "opens on this machine only"),
    ] {
        p.rect((252.0, y, 196.0, 46.0), theme.page, theme.line);
        p.text((350.0, y + 19.0), "middle", theme.text, (Face::Plain, 12.0), name, 190.0);
        p.text((350.0, y + 36.0), "middle", theme.faint, (Face::Plain, 11.0), words, 190.0);
    }
}

fn unit(p: &mut Picture) {
    let theme = p.theme;
    p.rect((746.0, 222.0, 194.0, 80.0), theme.fill, theme.good);
    p.text((843.0, 246.0), "middle", theme.text, (Face::Bold, 13.0), "opencode.service", 186.0);
    p.text((843.0, 268.0), "middle", theme.good, (Face::Mono, 12.0), "$CREDENTIALS_DIRECTORY/", 188.0);
    p.text((843.0, 286.0), "middle", theme.good, (Face::Mono, 12.0), "openai-api-key", 188.0);
}
