//! `read`, `Reading`: the meaning of an error message by its general shape. `core`, `inner_error`: the innermost error
//! of a message. `read_log`, `last_error`, `first_error`, `telling_lines`: find error lines in a log. `undecorated`:
//! removes the prefixes of loggers.
//!
//! Programs wrap errors: `starting: reading config: open /etc/x: no such file or directory`. The innermost error is
//! last, and its shape is the same in all programs. A message without such a shape has no known meaning.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::explanation::types::Cause;
use crate::messages::hints::without_hints;
use crate::messages::missing;
use syringe_core::text::{clean, clean_keeping_end};
use syringe_core::tsv::{alternatives, rows, word};

/// Maximum length of a quoted message of a program in a title or summary.
const MAX_WORDS: usize = 240;
/// Maximum length of a subject.
const MAX_SUBJECT: usize = 120;

/// The position of the subject of a shape in the message, or the kind of text that the subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Subject {
    None,
    /// The token after the words.
    After,
    /// The token before the words.
    Before,
    /// The last token in quotes before the words, or else the token before them.
    Quoted,
    Path,
    Library,
    Variable,
    Host,
    /// The name that a program looks up (`lookup NAME on SERVER`), or else a host.
    LookedUp,
    Command,
    /// The missing object that the module `missing` finds, or else the subject according to the second word.
    MissingPath,
    MissingQuoted,
    MissingCommand,
}

impl Subject {
    /// Returns the rule for the subject of a message in which the module `missing` finds no object.
    fn otherwise(self) -> Self {
        match self {
            Self::MissingPath => Self::Path,
            Self::MissingQuoted => Self::Quoted,
            Self::MissingCommand => Self::Command,
            other => other,
        }
    }

    fn is_missing(self) -> bool {
        self.otherwise() != self
    }
}

/// A shape of error texts.
struct Shape {
    tier: u8,
    words: Vec<Vec<&'static str>>,
    subject: Subject,
    cause: Cause,
    what: &'static str,
    otherwise: &'static str,
    advice: &'static str,
}

static SHAPES: LazyLock<Vec<Shape>> =
    LazyLock::new(|| rows(include_str!("../data/error_shapes.tsv")).filter_map(shape).collect());

fn shape(fields: Vec<&'static str>) -> Option<Shape> {
    let [tier, words, subject, cause, what, otherwise, advice] = fields[..] else { return None };
    let (subject, cause) = (word(subject)?, word(cause)?);
    Some(Shape { tier: tier.parse().ok()?, words: alternatives(words), subject, cause, what, otherwise, advice })
}

/// The meaning of an error message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// The meaning, with the thing that the message is about.
    pub(crate) what: String,
    /// The innermost part of the message.
    pub(crate) words: String,
    /// The part of the system that the message alone indicates as the cause.
    pub(crate) cause: Cause,
    /// Text of the action. `{node}` is the placeholder for the node's name.
    pub(crate) advice: &'static str,
    tier: u8,
}

impl Reading {
    /// Returns the meaning, followed by the text of the program.
    pub(crate) fn quoted(&self) -> String {
        format!("{} (\"{}\")", self.what, self.words)
    }

    /// Returns whether the message is more specific than a general statement such as `403 forbidden`.
    pub(crate) fn is_specific(&self) -> bool {
        self.tier < 3
    }

    /// Returns the action for this node.
    pub(crate) fn advice(&self, node: &str) -> String {
        self.advice.replace("{node}", node)
    }
}

/// Returns the shape of a message, and the position of its words.
fn found(message: &str) -> Option<(&'static Shape, (usize, usize))> {
    let lower = message.to_ascii_lowercase();
    let found = SHAPES.iter().filter_map(|shape| {
        let best = shape.words.iter().filter_map(|words| span(words, &lower)).max_by_key(|(_, end)| *end)?;
        Some((shape, best))
    });
    // `min_by_key` returns the first of equal elements, so the order of the table decides.
    found.min_by_key(|(shape, (_, end))| (shape.tier, std::cmp::Reverse(*end)))
}

/// Returns the meaning of a message. `None` if the message has no general shape.
pub(crate) fn read(message: &str) -> Option<Reading> {
    let message = &*undecorated(message);
    let (shape, (start, end)) = found(message)?;
    if let Some(missing) = Some(message).filter(|_| shape.subject.is_missing()).and_then(missing::in_message) {
        let words = innermost(message, start, end, MAX_WORDS);
        let tier = shape.tier.min(2);
        return Some(Reading { what: missing.in_words(), words, cause: shape.cause, advice: missing.advice(), tier });
    }
    let subject = subject(shape.subject.otherwise(), message, start, end);
    let what = match &subject {
        Some(subject) => shape.what.replace("{it}", subject),
        None => shape.otherwise.to_owned(),
    };
    let words = innermost(message, start, end, MAX_WORDS);
    Some(Reading { what, words, cause: shape.cause, advice: shape.advice, tier: shape.tier })
}

/// Returns the meaning of a line that reports a failure outside of the program.
pub(crate) fn of_something_else(line: &str) -> Reading {
    Reading {
        what: "another process, rank, node or service failed, did not respond, or ended it".to_owned(),
        words: words_of(line),
        cause: Cause::Unknown,
        advice: "Look at the process, rank, node or service that the message names: its state, its log, and the node on which it ran. After \
                 a cancellation or a signal, look for a deletion, a preemption or a time limit of the job. This program only reports it.",
        tier: 3,
    }
}

/// Returns the line of a log that contains the reason, with its meaning: the last line about an error with a known
/// shape.
pub(crate) fn read_log<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<(&'a str, Reading)> {
    let all: Vec<&str> = lines.collect();
    let readable = || (0..all.len()).rev().filter_map(|at| Some((all[at], read(&with_its_head(&all, at))?)));
    let of_errors = || readable().filter(|(line, _)| is_error(line));
    // A general statement often repeats the error before it, and a program that waits for a failed part reports a
    // timeout.
    let specific = |lines: Vec<(&'a str, Reading)>| {
        lines.into_iter().filter(|(_, reading)| reading.tier < 3).min_by_key(|(_, reading)| reading.tier)
    };
    specific(of_errors().collect()).or_else(|| specific(readable().collect())).or_else(|| of_errors().next())
}

/// Maximum number of lines between an error and the line about the failed attempt.
const LINKS: usize = 4;

/// Returns a line of a log together with the line about the failed attempt before it, if an error is reported over
/// several lines: `Failed to spawn: x`, and then `Caused by: No such file or directory`.
fn with_its_head<'a>(lines: &[&'a str], at: usize) -> Cow<'a, str> {
    let is_link = |line: &str| line.trim_start().to_ascii_lowercase().starts_with("caused by");
    let is_inside = |line: &str| line.starts_with([' ', '\t']);
    let line = lines[at];
    let first = at.saturating_sub(LINKS);
    let has_link = is_link(line) || (is_inside(line) && lines[first..at].iter().any(|before| is_link(before)));
    let is_head = |before: &&&str| !is_link(before) && !is_inside(before) && !before.trim().is_empty();
    match lines[first..at].iter().rev().find(is_head).filter(|_| has_link) {
        Some(head) => Cow::Owned(format!("{}: {}", head.trim(), line.trim())),
        None => Cow::Borrowed(line),
    }
}

/// Returns the last line of a log that is about an error.
pub(crate) fn last_error<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<&'a str> {
    lines.rev().find(|line| is_error(line))
}

/// Returns the first error before a given line: a line that a program marks with `error:`, or whose shape is specific.
/// The errors after the first error are often consequences.
pub(crate) fn first_error<'a>(lines: impl Iterator<Item = &'a str>, before: &str) -> Option<&'a str> {
    let is_marked = |line: &str| line.to_ascii_lowercase().contains("error: ");
    let mut earlier = lines.take_while(|line| *line != before);
    let is_telling = |line: &str| is_marked(line) || read(line).is_some_and(|reading| reading.is_specific());
    earlier.find(|line| (is_error(line) || is_of_tool(line)) && is_telling(line))
}

/// Returns whether a line has the form in which command-line tools report an error: `ln: /x: cannot overwrite
/// directory`.
fn is_of_tool(line: &str) -> bool {
    let name = line.split_once(": ").map_or("", |(name, _)| name);
    !name.is_empty() && name.len() < 16 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Returns whether a message is about a file, a device, a command or a library that is missing or cannot be used.
pub(crate) fn is_about_files(message: &str) -> bool {
    message
        .lines()
        .filter_map(found)
        .any(|(shape, _)| matches!(shape.subject.otherwise(), Subject::Path | Subject::Library | Subject::Command))
}

/// Beginnings of general remarks of PyTorch below a CUDA error, and of Rust about its backtrace.
const REMARKS: [&str; 5] = [
    "note: ",
    "CUDA kernel errors might be",
    "Search for `cuda",
    "For debugging consider passing",
    "Compile with `TORCH_USE_CUDA_DSA`",
];

/// Returns the most informative lines of a log or message, oldest first: the first and the last line about an error,
/// each with the line before it that belongs to it. If there is no error, returns the last lines.
pub(crate) fn telling_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_told = |line: &&str| !line.is_empty() && !REMARKS.iter().any(|start| line.starts_with(start));
    let lines = without_frames(lines.map(str::trim).filter(is_told));
    let errors: Vec<usize> = (0..lines.len()).filter(|at| is_error_at(&lines, *at)).collect();
    let specific = || errors.iter().copied().find(|at| read(lines[*at]).is_some_and(|reading| reading.is_specific()));
    let (Some(first), Some(last)) = (specific().or(errors.first().copied()), errors.last().copied()) else {
        return lines[lines.len().saturating_sub(LAST_LINES)..].to_vec();
    };
    let heading = last.checked_sub(1).filter(|before| is_heading(lines[*before]));
    let mut told: Vec<usize> = vec![first.saturating_sub(1), first, last, (last + 1).min(lines.len() - 1)];
    told.extend(heading);
    told.sort_unstable();
    told.dedup();
    told.into_iter().map(|at| lines[at]).collect()
}

/// Returns the lines without the frames of Python tracebacks: the place in the source, the line of the source, and the
/// marks below it.
fn without_frames<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut after_place = false;
    let mut is_frame = |line: &str| {
        let is_place = line.starts_with("File \"") && line.contains("\", line ");
        let is_marks = line.bytes().all(|byte| matches!(byte, b'^' | b'~' | b' '));
        let is_source = std::mem::replace(&mut after_place, is_place) && !is_raised(line);
        is_place || is_marks || is_source
    };
    lines.filter(|line| !is_frame(line)).collect()
}

/// Returns the name of the exception with which a line begins, without its module: `json.decoder.JSONDecodeError: …`.
pub(crate) fn exception(line: &str) -> Option<&str> {
    let mut rest = line.trim();
    // `[rank3]: ` and similar prefixes of launchers.
    while let Some((_, after)) = rest.strip_prefix(['[', '(']).and_then(|inside| inside.split_once([']', ')'])) {
        rest = after.trim_start_matches([':', ' ']);
    }
    let name = rest.split([':', ' ']).next()?;
    let is_whole = rest.len() == name.len() || rest[name.len()..].starts_with(':');
    let name = name.rsplit('.').next()?;
    let is_exception = ["Error", "Exception", "Exit", "Interrupt"].iter().any(|end| name.ends_with(end));
    (is_whole && is_exception && name.starts_with(|first: char| first.is_ascii_uppercase())).then_some(name)
}

/// Returns whether a line is an exception of Python and not a line of its source: `pyarrow.lib.ArrowInvalid: …`.
fn is_raised(line: &str) -> bool {
    let is_name = |name: &str| {
        name.contains('.') && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '_'))
    };
    exception(line).is_some() || line.split_once(": ").is_some_and(|(name, _)| is_name(name)) || is_name(line)
}

/// Returns whether a line only announces an error, such as NCCL's `Last error:`, or the name of the error file in
/// torchrun's table.
fn is_heading(line: &str) -> bool {
    line.to_ascii_lowercase().trim_end().ends_with("last error:") || line.trim_start().starts_with("error_file:")
}

/// Returns whether a line is about an error. The line after a heading such as NCCL's `Last error:` is about an error,
/// but the heading is not.
pub(crate) fn is_error_at(lines: &[&str], at: usize) -> bool {
    let follows = at.checked_sub(1).is_some_and(|before| is_heading(lines[before]));
    follows || (is_error(lines[at]) && !is_heading(lines[at]))
}

/// Number of last lines that are used from a log without an error.
const LAST_LINES: usize = 3;

/// Returns the last line in the log of a running program that its logger marks as an error. If `warnings` is true,
/// lines marked as warnings also count.
pub(crate) fn marked_error<'a>(mut lines: impl DoubleEndedIterator<Item = &'a str>, warnings: bool) -> Option<&'a str> {
    lines.rfind(|line| {
        is_marked(line, &["error", "fatal", "critical", "panic"], &['E', 'F'])
            || (warnings && is_marked(line, &["warning", "warn"], &['W']))
    })
}

/// Returns whether a logger marks a line with one of these levels: `ERROR`, `Error:`, `level=error`, `"error"`, the
/// first letter of klog, or the name of an exception.
fn is_marked(line: &str, levels: &[&str], letters: &[char]) -> bool {
    let klog =
        line.starts_with(letters) && line.get(1..5).is_some_and(|date| date.bytes().all(|byte| byte.is_ascii_digit()));
    let is_mark = |at: usize, word: &str| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        let is_level = levels.iter().any(|level| word.eq_ignore_ascii_case(level));
        let is_exception = letters.contains(&'E')
            && word.len() > 5
            && (word.ends_with("Error") || word.ends_with("Exception"))
            && after == Some(':');
        let in_capitals = word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_exception || (is_level && (in_capitals || after == Some(':') || matches!(before, Some('=' | '"' | '['))))
    };
    let mut words =
        line.split(|character: char| !character.is_ascii_alphanumeric()).map(|word| (offset_in(line, word), word));
    klog || words.any(|(at, word)| !word.is_empty() && is_mark(at, word))
}

/// Returns the byte position of a part within its text.
fn offset_in(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// Returns the innermost error of a message that has no known shape: the end of the message.
pub(crate) fn words_of(message: &str) -> String {
    let message = undecorated(message);
    innermost(&message, message.len(), message.len(), MAX_WORDS)
}

/// Returns whether a line of a log reports an error.
pub(crate) fn is_error(line: &str) -> bool {
    const MARKS: [&str; 16] = [
        "level=error",
        "level=fatal",
        "\"level\":\"error\"",
        "\"level\":\"fatal\"",
        "error:",
        "error ",
        "fatal",
        "panic:",
        "failed",
        "unable to",
        "cannot ",
        "could not ",
        "exception",
        "refused",
        "denied",
        "not found",
    ];
    let klog = line.starts_with(['E', 'F'])
        && line.get(1..5).is_some_and(|date| date.bytes().all(|byte| byte.is_ascii_digit()));
    let lower = line.to_ascii_lowercase();
    // If a shell prints its commands, it also prints the messages inside these commands.
    !line.starts_with("+ ") && (klog || MARKS.iter().any(|mark| lower.contains(mark)) || lower.contains("error"))
}

/// Returns the last position at which the message contains the parts of `words` in their order.
fn span(words: &[&str], message: &str) -> Option<(usize, usize)> {
    let (first, rest) = words.split_first()?;
    let mut until = message.len();
    while let Some(start) = message[..until].rfind(first) {
        let mut end = start + first.len();
        let whole = rest.iter().all(|part| match message[end..].find(part) {
            Some(at) => {
                end += at + part.len();
                true
            }
            None => false,
        });
        if whole && is_bounded(message, start, end) {
            return Some((start, end));
        }
        until = start;
    }
    None
}

/// Returns whether the words are whole words.
fn is_bounded(message: &str, start: usize, end: usize) -> bool {
    let is_inside = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = message.as_bytes();
    let first = is_inside(bytes.get(start)) && start > 0 && is_inside(bytes.get(start - 1));
    let last = is_inside(bytes.get(end.saturating_sub(1))) && is_inside(bytes.get(end));
    !first && !last
}

/// Names of the JSON fields that contain the message and the error in logs.
const JSON_FIELDS: [&[&str]; 2] = [&["msg", "message", "log"], &["error", "err", "reason"]];

/// Returns the message and the error of a line that is a JSON object, as operators and controllers write it.
fn of_json(line: &str) -> Option<String> {
    let fields: serde_json::Map<String, serde_json::Value> =
        line.starts_with('{').then(|| serde_json::from_str(line).ok())??;
    let text = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str());
    let texts: Vec<&str> = JSON_FIELDS.into_iter().filter_map(text).filter(|text| !text.is_empty()).collect();
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// Text between the name of the program that containerd called and the exit status of this program.
const ENDED: &str = "did not terminate successfully: ";

/// Removes containerd's note about a program of the runtime that ended. The note is followed by the output of the
/// program, which contains the error.
pub(crate) fn without_note(message: &str) -> &str {
    let output = message.split_once(ENDED).and_then(|(_, rest)| rest.split_once(": ")).map(|(_status, output)| output);
    output
        .filter(|output| inner_error(output).is_some() || output.split_whitespace().count() >= MIN_WORDS)
        .unwrap_or(message)
}

/// Removes the text that a logger adds to a message: time, level, source file.
pub(crate) fn undecorated(message: &str) -> Cow<'_, str> {
    let message = without_note(message.trim());
    of_json(message).map_or_else(|| Cow::Borrowed(without_prefix(message)), Cow::Owned)
}

fn without_prefix(message: &str) -> &str {
    for (field, quote) in [(" msg=\"", '"'), ("\"msg\":\"", '"'), ("\"error\":\"", '"')] {
        if let Some((_, rest)) = message.split_once(field).filter(|(before, _)| before.len() < 80) {
            return rest.trim_end().trim_end_matches([quote, '}']).trim_end_matches("\\n");
        }
    }
    // glog and klog print the message after the position in the source file:
    // `E1121 02:40:02.611072       1 main.go:173] message`.
    if let Some((_, rest)) = message.split_once("] ").filter(|(head, _)| is_source_line(head)) {
        return rest;
    }
    // A date and a time before the message.
    let is_time = |word: &str| {
        word.len() >= 8
            && word.bytes().filter(u8::is_ascii_digit).count() >= 6
            && word.bytes().all(|byte| byte.is_ascii_digit() || b"-/:.,TZ+[]".contains(&byte))
    };
    let mut rest = message;
    while let Some((_, more)) = rest.split_once(' ').filter(|(word, _)| is_time(word)) {
        rest = more.trim_start();
    }
    rest
}

/// Endings of the names of source files.
const SOURCES: [&str; 9] = [".go:", ".cc:", ".cu:", ".cpp:", ".c:", ".h:", ".hpp:", ".py:", ".rs:"];

/// Returns whether a text ends with the name of a source file and the number of a line: `… main.go:173`.
pub(crate) fn is_source_line(head: &str) -> bool {
    let place = head.rsplit([' ', '[', '\t']).next().unwrap_or_default();
    let number = place.rsplit(':').next().unwrap_or_default();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && SOURCES.iter().any(|end| place.contains(end))
}

/// Minimum length of the innermost part of a message.
const MIN_LENGTH: usize = 36;

/// The end of a chain of errors of containerd.
pub(crate) const UNKNOWN: &str = ": unknown";

/// Endings of error chains that carry no information.
const EMPTY_ENDS: [&str; 3] = [UNKNOWN, ", which is unexpected", "."];

/// Minimum number of words of an error inside another error.
const MIN_WORDS: usize = 3;

/// Returns the error that follows another error after a colon in the same line. A single word such as `unknown` does
/// not count. For a hook, returns the last line of its output.
pub(crate) fn inner_error(rest: &str) -> Option<&str> {
    let output = rest.split_once("stderr: ").map(|(_, output)| output);
    let mut lines = output.unwrap_or(rest).lines().flat_map(|line| line.split("\\n")).map(str::trim);
    let mut line = if output.is_some() { lines.filter(|line| line.contains(": ")).last()? } else { lines.next()? };
    for empty in EMPTY_ENDS {
        line = line.strip_suffix(empty).unwrap_or(line);
    }
    let inner = match line.strip_prefix(": ") {
        Some(inner) => inner,
        None if output.is_some() => line,
        None => line.split_once(": ")?.1,
    };
    let inner = inner.trim_matches(['"', '\'', '\\', ' ']);
    let words = inner.split_whitespace().filter(|word| word.chars().filter(char::is_ascii_alphabetic).count() > 1);
    (words.count() >= MIN_WORDS).then_some(inner)
}

/// Maximum length of the innermost error that [`core`] returns.
const MAX_CORE: usize = 600;

/// Returns the innermost error of a message: the part around its shape, or else its end.
pub(crate) fn core(message: &str) -> String {
    let message = &*undecorated(message);
    let (start, end) = found(message).map_or((message.len(), message.len()), |(_, place)| place);
    innermost(message, start, end, MAX_CORE)
}

/// Returns the part of the message around its shape: the last errors of the chain, and the text after them.
fn innermost(message: &str, start: usize, end: usize, longest: usize) -> String {
    let mut message = message;
    for empty in EMPTY_ENDS {
        message = message.strip_suffix(empty).unwrap_or(message);
    }
    let (start, end) = (start.min(message.len()), end.min(message.len()));
    // The parts of the chain before the shape are included if there is room for them.
    let least = end.saturating_sub(longest * 2 / 3);
    let links = message.match_indices(": ").map(|(at, _)| at + 2).filter(|at| *at >= least && *at < start.max(1));
    let lines = message[..start].rfind('\n').map(|at| at + 1);
    let from = if least == 0 { 0 } else { links.min().unwrap_or(start) };
    // The number of an error, or the end of a path, is not clear without the text before it.
    let from = if end.saturating_sub(from) < MIN_LENGTH && from > 0 {
        message[..from].trim_end_matches(": ").rfind(": ").map_or(0, |at| at + 2)
    } else {
        from
    };
    let from = lines.map_or(from, |line| from.max(line));
    let from = (0..=from).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    // The cause is at the end of a chain of errors, so a long chain is cut in the middle.
    clean_keeping_end(message[from..].lines().next().unwrap_or_default(), longest)
}

fn subject(kind: Subject, message: &str, start: usize, end: usize) -> Option<String> {
    let (before, after) = (without_hints(message.get(..start)?), without_hints(message.get(end..)?));
    let (before, after) = (&*before, &*after);
    let inside = message.get(start..end)?;
    let found = match kind {
        Subject::None => None,
        Subject::After => {
            // The name may be between the words: "version `X' not found".
            let between = inside.split_once('`').map(|(_, rest)| rest).and_then(|rest| rest.split(['\'', '`']).next());
            between.filter(|name| !name.is_empty()).or_else(|| first_token(after))
        }
        Subject::Before => last_token(before),
        Subject::Quoted => last_quoted(inside)
            .or_else(|| last_quoted(before))
            .or_else(|| last_token(before).filter(|token| is_name(token))),
        Subject::Path => {
            // A frame of a Python traceback names the code, not the file that the message is about.
            let is_frame = |token: &str| token.starts_with('"') && token.trim_end_matches(',').ends_with(".py\"");
            let is_path = |token: &str| token.contains('/') && token.len() > 2 && !token.contains("://");
            nearest(before, after, |token| is_path(token) && !is_frame(token))
        }
        Subject::Library => nearest(before, after, |token| token.contains(".so") || token.starts_with("lib")),
        Subject::Variable => nearest(before, inside, is_variable).or_else(|| nearest("", after, is_variable)),
        Subject::LookedUp if let Some(name) = looked_up(&format!("{before}{inside}")) => return Some(name),
        // An escaped line break (`\\n`) ends an address.
        Subject::Host | Subject::LookedUp => {
            return host(&format!("{before}{inside}").replace("\\n", "  "), &after.replace("\\n", "  "));
        }
        Subject::Command => last_quoted(before).or_else(|| bracketed(before)).or_else(|| last_token(before)),
        Subject::MissingPath | Subject::MissingQuoted | Subject::MissingCommand => None,
    };
    found.map(|found| clean(bare(found), MAX_SUBJECT)).filter(|found| found.len() > 1 && !is_fragment(found))
}

/// Returns whether a subject is a fragment of several quoted texts: `a"/"b".`.
fn is_fragment(subject: &str) -> bool {
    subject.contains(['"', '`'])
}

/// Characters that are removed from both ends of a name.
const EDGES: [char; 12] = ['"', '\'', '`', ':', ',', ';', '(', ')', '[', ']', '{', ' '];

/// Removes punctuation at both ends of a name. An address may begin with a colon.
fn bare(token: &str) -> &str {
    token.trim_end_matches(EDGES).trim_start_matches(|first| first != ':' && EDGES.contains(&first))
}

fn is_name(token: &str) -> bool {
    token.contains(['.', '/', '_', '-', ':']) && token.len() > 2
}

fn is_variable(token: &str) -> bool {
    token.len() > 2
        && token.contains('_')
        && token.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_host(token: &str) -> bool {
    let port = || {
        token.rsplit_once(':').is_some_and(|(_, port)| port.len() > 1 && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let dotted = || token.split('.').count() > 2 && !token.starts_with('/') && !is_name_of_code(token);
    token.contains("://")
        || (token.contains('.') && token.contains('/') && !token.starts_with('/'))
        || token.ends_with(".sock")
        || port()
        || dotted()
}

/// Returns the address that is nearest to the words. Go writes both ends of a connection: `LOCAL->REMOTE`.
fn host(before: &str, after: &str) -> Option<String> {
    let found = nearest(before, after, is_host)?;
    let remote = found.rsplit_once("->").map_or(found, |(_, remote)| remote);
    Some(clean(remote, MAX_SUBJECT)).filter(|found| !is_fragment(found))
}

/// Returns the name in the last `lookup NAME on SERVER` of a text, as Go writes it.
fn looked_up(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once("lookup ")?;
    let name = rest.split([' ', ':']).next().filter(|name| !name.is_empty())?;
    Some(clean(name, MAX_SUBJECT)).filter(|name| !is_fragment(name))
}

/// Last parts of host names that are longer than those of most domains.
const DOMAINS: [&str; 9] =
    ["local", "internal", "cloud", "info", "localdomain", "cluster", "private", "intranet", "consul"];

/// Returns whether the parts of a name are those of a class, module or logger, not of a host:
/// `botocore.exceptions.ClientError`, `agent.auth.handler`.
fn is_name_of_code(token: &str) -> bool {
    let last = token.rsplit('.').next().unwrap_or_default();
    let letters = last.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    letters
        && (last.contains(|one: char| one == '_' || one.is_ascii_uppercase()) || last.len() > 4)
        && !DOMAINS.contains(&last)
}

/// Returns the last token before the words for which `is` returns true, or else the first such token after them.
fn nearest<'m>(before: &'m str, after: &'m str, is: impl Fn(&str) -> bool) -> Option<&'m str> {
    let fits = |token: &&str| is(bare(token));
    let near = before.char_indices().rev().nth(240).map_or(0, |(at, _)| at);
    let last = before[near..].split(char::is_whitespace).rev().find(fits);
    last.or_else(|| after.split(char::is_whitespace).take(12).find(fits)).map(bare)
}

fn last_token(before: &str) -> Option<&str> {
    before
        .trim_end_matches([' ', ':', ',', '('])
        .split(char::is_whitespace)
        .next_back()
        .filter(|token| !token.is_empty())
}

fn first_token(after: &str) -> Option<&str> {
    after.trim_start_matches([' ', ':', '=']).split(char::is_whitespace).next().filter(|token| !token.is_empty())
}

/// Returns the last quoted text without line breaks.
fn last_quoted(text: &str) -> Option<&str> {
    let (head, _) = text.rsplit_once(['"', '\'', '`'])?;
    let (_, quoted) = head.rsplit_once(['"', '\'', '`'])?;
    (!quoted.is_empty() && quoted.len() < MAX_SUBJECT && !quoted.contains('\n')).then_some(quoted)
}

/// Returns the last text in brackets: `failed to run command [a b c]`.
fn bracketed(text: &str) -> Option<&str> {
    let (head, _) = text.rsplit_once(']')?;
    head.rsplit_once('[').map(|(_, inside)| inside).filter(|inside| inside.len() < MAX_SUBJECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_complete() {
        assert_eq!(SHAPES.len(), rows(include_str!("../data/error_shapes.tsv")).count(), "a row has an error");
        for shape in SHAPES.iter() {
            let what = shape.what;
            assert!(shape.words.iter().flatten().all(|word| *word == word.to_ascii_lowercase()), "{what}");
            assert!(!shape.otherwise.contains("{it}") && shape.advice.ends_with('.'), "{what}");
            assert!(!what.contains("{it}") || shape.subject != Subject::None, "{what}");
        }
    }

    /// Tests messages of programs that are in no table. Each message has an expected meaning.
    #[test]
    fn the_innermost_error_and_its_subject_are_read() {
        for (message, named) in [
            (
                "time=\"2026-11-21T02:40:04Z\" level=fatal msg=\"starting: open /etc/y/z.conf: no such file or directory\"",
                "/etc/y/z.conf does not exist",
            ),
            (
                "E1121 02:40:02.611072       1 main.go:173] serving: listen tcp :9400: bind: address already in use",
                ":9400",
            ),
            (
                "2026/11/21 02:40:02 dial tcp 10.1.2.3:5432: connect: connection refused",
                "nothing responds at 10.1.2.3:5432",
            ),
            (
                "/usr/bin/x: error while loading shared libraries: libfoo.so.3: cannot open shared object file: No such file or directory",
                "library libfoo.so.3 is missing",
            ),
            ("/opt/x: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by /opt/y.so)", "lacks GLIBC_2.34"),
            ("/opt/run: line 7: CLUSTER_NAME: unbound variable", "variable CLUSTER_NAME is not set"),
            ("ModuleNotFoundError: No module named 'flash_attn'", "Python module flash_attn"),
            (
                "failed to list nodes: nodes is forbidden: User \"system:serviceaccount:a:b\" cannot list resource \"nodes\"",
                "the API server forbids",
            ),
            (
                "Get \"https://example.org/v2/\": dial tcp: lookup example.org on 10.0.0.10:53: no such host",
                "cannot be resolved",
            ),
            (
                "dial tcp: lookup etcd.infra.svc.cluster.local on 10.96.0.10:53: no such host",
                "the name etcd.infra.svc.cluster.local cannot be resolved",
            ),
            (
                "dial tcp: lookup s3.example.com on 10.96.0.10:53: read udp 10.42.1.9:51223->10.96.0.10:53: i/o timeout",
                "the DNS server 10.96.0.10:53 did not respond",
            ),
            ("dial tcp 127.0.0.1:0->127.0.0.6:15002: connect: connection refused", "at 127.0.0.6:15002"),
            ("error loading: symlink /a/b /c/d: file exists", "/c/d exists already"),
            (
                "/x/y.sh: line 3: /sys/module/a/parameters/b: Read-only file system",
                "/sys/module/a/parameters/b cannot be written",
            ),
            ("Error: unknown flag: --fast", "argument --fast"),
        ] {
            let reading = read(message).unwrap_or_else(|| panic!("no shape: {message}"));
            assert!(reading.what.contains(named), "{message}: {}", reading.what);
        }
    }

    #[test]
    fn a_piece_of_quoted_texts_and_a_name_in_a_hint_are_no_subjects() {
        let reading = read(
            "Unable to attach or mount volumes for pod \"a\"/\"b-0\". list of unmounted volumes=[data]: timed out",
        );
        let reading = reading.expect("a shape");
        assert!(!reading.what.contains(['"', '[']), "{}", reading.what);
        let hint = " (set X_DEBUG_FILE=/tmp/y.z/w:4711 to see more)";
        for shape in SHAPES.iter() {
            for words in &shape.words {
                let reading = read(&format!("it failed: {}{hint}", words.join(" x ")));
                assert!(reading.is_none_or(|reading| !reading.what.contains("4711")), "{words:?}");
            }
        }
    }

    #[test]
    fn words_without_a_shape_have_no_meaning() {
        for message in
            ["the frobnicator is sad", "step 12 of 90: loss=0.31", "Waiting for change to the label", "done", ""]
        {
            assert_eq!(read(message), None, "{message}");
        }
    }

    #[test]
    fn the_reason_is_found_among_the_lines_of_a_log() {
        let lines = ["Starting", "error: open /a/b: permission denied", "retrying", "Shutting down"];
        let (line, reading) = read_log(lines.into_iter()).expect("an error");
        assert_eq!((line, reading.what.as_str()), (lines[1], "access to /a/b is denied"));
        for first in ["ln: /a/b: cannot overwrite directory with non-directory", "gzip: stdin: unexpected end of file"]
        {
            let lines = ["Installing", first, "it failed: no driver"];
            assert_eq!(first_error(lines.into_iter(), lines[2]), Some(first));
        }
        assert_eq!(last_error(["a", "it failed: x", "b"].into_iter()), Some("it failed: x"));
    }

    #[test]
    fn the_place_of_a_refusal_is_a_host_and_not_a_class_or_a_logger() {
        let what = |message: &str| read(message).map(|reading| reading.what).unwrap_or_default();
        for (message, expected) in [
            (
                "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the PutObject operation",
                "the identity of the pod has no permission at a service",
            ),
            (
                r"agent.auth.handler: Error making API request. URL: PUT https://vault.svc:8200/v1/login\nCode: 403. permission denied",
                "the identity of the pod has no permission at https://vault.svc:8200/v1/login",
            ),
            ("redis.exceptions.ConnectionError: Connection refused", "a service does not respond (connection refused)"),
            (
                "dial tcp: minio.data.svc.cluster.local: connection refused",
                "nothing responds at minio.data.svc.cluster.local (connection refused)",
            ),
            ("listen tcp4 :8080: bind: permission denied", "the program may not listen on :8080"),
            ("git@github.com: Permission denied (publickey).", "git@github.com refuses the SSH key of the program"),
            (
                "curl: (28) Failed to connect to nim-cache.internal port 443 after 130012 ms: Couldn't connect to server",
                "nothing responds at nim-cache.internal",
            ),
            (
                "ERROR: Could not find a version that satisfies the requirement torch==2.8.0 (from versions: none)",
                "no suitable version of torch==2.8.0 exists",
            ),
            (
                "pyarrow.lib.ArrowInvalid: Parquet magic bytes not found in footer. Either the file is corrupted",
                "an archive or file is not complete or has another format",
            ),
        ] {
            assert_eq!(what(message), expected, "{message}");
        }
    }
}
