//! Generates `docs/terminal.svg`, the picture of a terminal in the README, and tests that the picture is current.

use std::fmt::Write;
use std::process::Command;

use crate::markdown::root;

const FILE: &str = "docs/terminal.svg";
/// The commands in the picture.
const COMMANDS: [&[&str]; 2] = [&["--demo", "nodes"], &["--demo", "diagnose", "gpu-2"]];
/// Number of lines of each answer that the picture shows.
const LINES: usize = 22;
const COLUMNS: usize = 110;
/// Width and height of a character, and the margin, in pixels.
const CHARACTER: f32 = 7.8;
const LINE: usize = 18;
const MARGIN: usize = 16;
/// The colors in the output of the program (SGR parameters), and the colors in the picture.
const COLOURS: [(&str, &str); 6] =
    [("1;31", "#ff6b6b"), ("31", "#ff6b6b"), ("33", "#e3b341"), ("32", "#56d364"), ("35", "#d2a8ff"), ("1", "#ffffff")];

/// Runs the program on a terminal with the width of the picture.
fn printed(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"))
        .env_clear()
        .envs([("COLUMNS", COLUMNS.to_string()), ("GPU_SYRINGE_COLOR", "always".to_owned())])
        .envs([("HOME", home.path()), ("XDG_STATE_HOME", home.path())])
        .args(["-o", "table"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Returns a line as SVG spans with colors.
fn spans(line: &str) -> String {
    let mut svg = String::new();
    for (number, part) in line.split("\x1b[").enumerate() {
        let (code, text) = if number == 0 { ("0", part) } else { part.split_once('m').unwrap() };
        match COLOURS.iter().find(|(known, _)| *known == code) {
            Some((_, colour)) if !text.is_empty() => {
                write!(svg, "<tspan fill=\"{colour}\">{}</tspan>", escaped(text)).unwrap()
            }
            _ => svg.push_str(&escaped(text)),
        }
    }
    svg
}

fn picture() -> String {
    let mut lines = Vec::new();
    for arguments in COMMANDS {
        lines.push(format!("<tspan fill=\"#8b949e\">$</tspan> gpu-syringe {}", arguments.join(" ")));
        // Consecutive color codes are joined into one code.
        let text = printed(arguments).replace("m\x1b[", ";");
        let all: Vec<_> = text.lines().collect();
        lines.extend(all.iter().take(LINES).map(|line| spans(line)));
        if all.len() > LINES {
            lines.push("…".to_owned());
        }
        lines.push(String::new());
    }
    let (width, height) = ((COLUMNS as f32 * CHARACTER) as usize + 2 * MARGIN, lines.len() * LINE + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" fill=\"#e6edf3\" xml:space=\"preserve\">\n"
    );
    for (number, line) in lines.iter().enumerate() {
        writeln!(svg, "<text x=\"{MARGIN}\" y=\"{}\">{line}</text>", MARGIN + (number + 1) * LINE - 4).unwrap();
    }
    svg + "</g>\n</svg>\n"
}

/// Replaces times and durations, which differ in each run.
fn without_times(svg: &str) -> String {
    let times = regex::Regex::new(r"\d{4}-\d\d-\d\dT[\d:]+Z|\d+ (ms|s|min|h|days?)\b").unwrap();
    times.replace_all(svg, "…").into_owned()
}

#[test]
fn the_picture_shows_what_the_program_prints() {
    let path = root().join(FILE);
    let now = picture();
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    if without_times(&is) == without_times(&now) {
        return;
    }
    let writes = std::env::var("INSTA_UPDATE").is_ok_and(|word| word == "always");
    assert!(writes, "{FILE} is not current: INSTA_UPDATE=always writes the file");
    std::fs::write(&path, now).unwrap();
}
