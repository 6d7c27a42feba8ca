//! The pictures of the documentation, each for light and for dark pages: `cargo run --locked --example pictures -- DIRECTORY` draws them
//! there. Those in docs/pictures are held to be these by tests/repository/generated.rs, which makes them anew, too.

mod ages;
mod deaths;
mod theme;
mod way;

use std::path::PathBuf;

use theme::Theme;

type Draw = fn(&'static Theme) -> String;

/// Each by its name.
const ALL: [(&str, Draw); 3] = [("way", way::draw), ("deaths", deaths::draw), ("ages", ages::draw)];

/// File names and what is in them.
pub fn pictures() -> impl Iterator<Item = (String, String)> {
    let both = |(name, draw): (&'static str, Draw)| {
        [&theme::LIGHT, &theme::DARK].map(|theme| (format!("{name}-{}.svg", theme.name), draw(theme)))
    };
    ALL.into_iter().flat_map(both)
}

/// As the documentation has it beside the picture of it.
pub fn table_of_deaths() -> String {
    deaths::table()
}

/// The tests that it names.
pub fn tests_of_deaths() -> impl Iterator<Item = &'static str> {
    deaths::tests()
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).map_or_else(|| "docs/pictures".into(), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    pictures().try_for_each(|(name, svg)| std::fs::write(directory.join(name), svg))
}
