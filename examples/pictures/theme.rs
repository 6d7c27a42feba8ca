//! What the pictures have in common: colours for light and dark pages, and text whose place is known to suffice.

use std::fmt::Write;

/// The colours of a page.
pub struct Theme {
    pub name: &'static str,
    pub page: &'static str,
    pub text: &'static str,
    pub faint: &'static str,
    pub line: &'static str,
    pub fill: &'static str,
    pub blue: &'static str,
    pub good: &'static str,
    pub doubtful: &'static str,
    pub bad: &'static str,
    pub violet: &'static str,
}

pub const LIGHT: Theme = Theme {
    name: "light",
    page: "#ffffff",
    text: "#1f2328",
    faint: "#59636e",
    line: "#d1d9e0",
    fill: "#f6f8fa",
    blue: "#0969da",
    good: "#1a7f37",
    doubtful: "#9a6700",
    bad: "#d1242f",
    violet: "#8250df",
};

pub const DARK: Theme = Theme {
    name: "dark",
    page: "#0d1117",
    text: "#f0f6fc",
    faint: "#9198a1",
    line: "#3d444d",
    fill: "#151b23",
    blue: "#4493f8",
    good: "#3fb950",
    doubtful: "#d29922",
    bad: "#f85149",
    violet: "#ab7df8",
};

/// The advance of the widest usual fallback font (DejaVu Sans), as a part of the size, for words in lower case; its bold is wider.
const ADVANCE: f64 = 0.61;
const BOLD: f64 = 0.69;
const MONO: f64 = 0.61;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Plain,
    Bold,
    Mono,
}

/// A picture that is being drawn.
pub struct Picture {
    pub theme: &'static Theme,
    svg: String,
}

impl Picture {
    /// `title` is for who hears the page.
    pub fn new(theme: &'static Theme, width: u32, height: u32, title: &str) -> Self {
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" font-family=\"sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{}\"/>",
            theme.page
        );
        Self { theme, svg }
    }

    pub fn line(&mut self, element: &str) {
        self.svg.push_str(element);
        self.svg.push('\n');
    }

    /// `room`: how wide it may be, whichever font draws it.
    pub fn text(
        &mut self,
        (x, y): (f64, f64),
        anchor: &str,
        colour: &str,
        (face, size): (Face, f64),
        text: &str,
        room: f64,
    ) {
        let advance = match face {
            Face::Plain => ADVANCE,
            Face::Bold => BOLD,
            Face::Mono => MONO,
        };
        let wide = text.chars().count() as f64 * advance * size;
        assert!(wide <= room, "{text:?} takes {wide:.0} of {room:.0}");
        let style = match face {
            Face::Plain => "",
            Face::Bold => " font-weight=\"bold\"",
            Face::Mono => " font-family=\"monospace\"",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.line(&format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{colour}\" font-size=\"{size}\"{style}>{text}</text>"
        ));
    }

    pub fn rect(&mut self, (x, y, width, height): (f64, f64, f64, f64), fill: &str, stroke: &str) {
        self.line(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{fill}\" stroke=\"{stroke}\"/>"
        ));
    }

    /// With its head at the second point; upright or level.
    pub fn arrow(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        let (along, across) = (
            (x2 - x1).signum() * f64::from(u8::from(x1 != x2)),
            (y2 - y1).signum() * f64::from(u8::from(y1 != y2)),
        );
        let back = (x2 - 8.0 * along, y2 - 8.0 * across);
        self.line(&format!(
            "<path d=\"M{x1} {y1}L{} {}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>",
            back.0, back.1
        ));
        let side = (5.0 * across, 5.0 * along);
        self.line(&format!(
            "<path d=\"M{x2} {y2}L{} {}L{} {}Z\" fill=\"{colour}\"/>",
            back.0 - side.0,
            back.1 - side.1,
            back.0 + side.0,
            back.1 + side.1
        ));
    }

    pub fn done(self) -> String {
        self.svg + "</svg>\n"
    }
}
