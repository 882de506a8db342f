//! `deciding`, `after_last_work`: the lines of a message that may explain the end of a program.
//! `is_own_exception`: whether the program caused the last exception. `other_place`: the other node or rank that a
//! message is about.
//!
//! A program can report an error, handle it, and end later for another reason. Only the last exception ended it.

use crate::messages::shapes;

/// Levels of log lines that do not report an error that ends the program.
const HARMLESS: [&str; 6] = ["warn", "warning", "info", "notice", "debug", "trace"];

/// Beginnings of lines that quote a text, such as comments of a program or a configuration.
const QUOTES: [&str; 4] = ["# ", "// ", "> ", "| "];

/// Python exceptions about the code or the data of the program itself. Unlike `RuntimeError`, they do not report an
/// error of CUDA, of a library or of another process.
const OF_PROGRAM: [&str; 22] = [
    "ArgumentError",
    "AssertionError",
    "AttributeError",
    "FileExistsError",
    "FileNotFoundError",
    "ImportError",
    "IndentationError",
    "IndexError",
    "IsADirectoryError",
    "JSONDecodeError",
    "KeyError",
    "ModuleNotFoundError",
    "NameError",
    "NotImplementedError",
    "RecursionError",
    "SyntaxError",
    "TypeError",
    "UnboundLocalError",
    "UnicodeDecodeError",
    "ValidationError",
    "ValueError",
    "ZeroDivisionError",
];

/// Text that Python prints between an exception and another exception that it led to.
const CHAIN: [&str; 2] = ["was the direct cause of the following", "during handling of the above exception"];

/// Returns the lines that may explain the end of the program. Quotations, and harmless lines before an error, are
/// removed. If the last exception is an exception of the program itself, the lines before it are also removed, unless
/// Python reports that one exception led to the other.
pub(crate) fn deciding<'m>(lines: impl Iterator<Item = &'m str>) -> Vec<&'m str> {
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let error = lines.iter().rposition(|line| !is_aside(line) && shapes::is_error(line)).unwrap_or(0);
    let is_kept = |(at, line): (usize, &&'m str)| (at >= error || !is_aside(line)).then_some(*line);
    let mut kept: Vec<&str> = lines.iter().enumerate().filter_map(is_kept).collect();
    let last = kept.iter().rposition(|line| shapes::exception(line).is_some());
    if let Some(at) = last.filter(|at| shapes::exception(kept[*at]).is_some_and(|name| OF_PROGRAM.contains(&name))) {
        let is_chained = kept[..at].iter().any(|line| {
            let line = line.to_ascii_lowercase();
            CHAIN.iter().any(|words| line.contains(words))
        });
        if !is_chained {
            kept.drain(..at);
        }
    }
    kept
}

/// Returns whether the last exception of a message is an exception of the program itself.
pub(crate) fn is_own_exception(message: &str) -> bool {
    let last = message.lines().filter(|line| !is_aside(line)).filter_map(shapes::exception).next_back();
    last.is_some_and(|name| OF_PROGRAM.contains(&name))
}

/// Number of harmless lines after an error at which the program went on with its work.
const WENT_ON: usize = 2;

/// Returns the lines that the program wrote after its last sign of normal work. An error before that sign did not end
/// the program.
pub(crate) fn after_last_work<'m>(lines: impl Iterator<Item = &'m str>) -> Vec<&'m str> {
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let worked =
        lines.windows(WENT_ON).rposition(|pair| pair.iter().all(|line| is_aside(line) && !shapes::is_error(line)));
    lines[worked.map_or(0, |at| at + WENT_ON)..].to_vec()
}

/// Returns whether a line quotes a text, or has a level below an error.
fn is_aside(line: &str) -> bool {
    let line = line.trim_start();
    let is_level = |word: &str| HARMLESS.iter().any(|level| word.eq_ignore_ascii_case(level));
    // `[warn] …`, `WARNING: …`, `2026-11-21 02:10:00 WARNING …`, `level=info`.
    let mut words =
        line.split_whitespace().take(4).map(|word| (word, word.trim_matches(['[', ']', ':', '|', '(', ')'])));
    let marked = words.any(|(whole, word)| {
        let is_marked = whole.len() > word.len() || word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_level(word) && is_marked || word.strip_prefix("level=").is_some_and(is_level)
    });
    // glog: `I1121 02:40:02.611072 1 main.go:173] …`, `2026-11-21 02:40:02.6: I tensorflow/x.cc:188] …`.
    let of_glog = line.split_once("] ").is_some_and(|(head, _)| {
        let mut words = head.split_whitespace();
        shapes::is_source_line(head)
            && words.any(|word| word.starts_with(['I', 'W']) && word[1..].bytes().all(|byte| byte.is_ascii_digit()))
    });
    let marked = marked || of_glog;
    // NCCL has no level above WARN.
    (marked && !line.contains("NCCL WARN")) || QUOTES.iter().any(|start| line.starts_with(start))
}

/// Words that come before the name of a node.
const NODES: [&str; 5] = ["node", "host", "hostname", "machine", "@"];

/// Words for another process of a job.
const OTHER_RANKS: [&str; 8] = [
    "peer rank",
    "remote rank",
    "another rank",
    "other rank",
    "peer node",
    "remote node",
    "another node",
    "remote worker",
];

/// Returns the node or rank that a message is about, unless it is one of these names.
pub(crate) fn other_place(message: &str, own: &[&str]) -> Option<String> {
    let words: Vec<&str> = message
        .split(|one: char| one.is_whitespace() || "()[]{},;'\"=".contains(one))
        .filter(|word| !word.is_empty())
        .collect();
    let named =
        words.windows(2).filter(|pair| NODES.contains(&pair[0].trim_end_matches(':').to_ascii_lowercase().as_str()));
    let mut named = named.map(|pair| pair[1].trim_matches([':', '.'])).filter(|name| is_host(name)).peekable();
    let is_own = |name: &str| own.iter().any(|own| same_host(own, name));
    if named.peek().is_some() {
        let name = named.find(|name| !is_own(name))?;
        // A prefix of a launcher: `[rank 30 @ gpu-h100-5]`.
        let rank = words.windows(4).find(|four| four[0] == "rank" && four[2] == "@" && four[3] == name);
        let rank = rank.map(|four| format!("rank {} on ", four[1])).unwrap_or_default();
        return Some(format!("{rank}node {name}"));
    }
    let prefixes: Vec<&str> = message.lines().filter_map(host_of_prefix).collect();
    if let Some(name) = prefixes.first().filter(|_| !prefixes.iter().any(|name| is_own(name))) {
        return Some(format!("node {name}"));
    }
    // Ray prints the address of a worker that runs on another node than the program that prints the line.
    let of_ray = message.lines().find_map(|line| line.trim().strip_prefix('(')?.split_once(')'));
    if let Some((_, address)) = of_ray.and_then(|(worker, _)| worker.split_once("pid=")?.1.split_once(", ip=")) {
        return Some(format!("the Ray worker at {address}"));
    }
    let lower = message.to_ascii_lowercase();
    OTHER_RANKS.iter().find(|words| lower.contains(*words)).map(|words| (*words).to_owned())
}

/// Returns the host from the prefix that a launcher writes before a line of a rank: `gpu-7: [rank9]: …`, or
/// `[1,42]<stderr>:gpu-7:…` of Open MPI.
fn host_of_prefix(line: &str) -> Option<&str> {
    let line = line.trim();
    let tagged =
        line.strip_prefix('[').and_then(|rest| rest.split_once(['>'])).filter(|(tag, _)| tag.contains("]<std"));
    let (host, rest) = tagged.map_or(line, |(_, rest)| rest.trim_start_matches(':')).split_once(':')?;
    (is_host(host) && (tagged.is_some() || rest.trim_start().starts_with("[rank"))).then_some(host)
}

/// Returns whether a word has the form of a host name with a number: `gpu-h100-7`.
fn is_host(word: &str) -> bool {
    let form = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    // This is the name of a library, or a version such as `v18.2`.
    let is_other = word.contains(".so")
        || word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|one: char| one.is_ascii_digit()));
    // This is a number with a unit, such as `2.40GHz`.
    let is_number = word.starts_with(|one: char| one.is_ascii_digit()) && word.contains('.');
    form && !is_other && !is_number && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) && word.len() > 2
}

/// Returns whether two host names belong to one machine. One name may lack the domain of the other name.
fn same_host(one: &str, other: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    short(one) == short(other)
}

#[cfg(test)]
mod tests {
    use super::{OF_PROGRAM, deciding, is_own_exception, other_place};

    #[test]
    fn an_error_before_an_exception_of_the_program_was_handled() {
        let handled = "RuntimeError: CUDA error: uncorrectable ECC error encountered";
        for name in OF_PROGRAM {
            for line in [format!("{name}: x"), format!("json.decoder.{name}: x"), format!("[rank3]: {name}: x")] {
                let message = format!("{handled}\nretrying\n{line}");
                assert_eq!(deciding(message.lines()), [line.as_str()]);
                assert!(is_own_exception(&message), "{message}");
                let chained =
                    format!("{handled}\nDuring handling of the above exception, another exception occurred:\n{line}");
                assert!(deciding(chained.lines()).contains(&handled));
            }
        }
        for last in ["RuntimeError: engine failed", "Exception: see above", "x", "the error was ValueError: x"] {
            let message = format!("{handled}\n{last}");
            assert_eq!(deciding(message.lines()), [handled, last]);
            assert!(!is_own_exception(&message), "{message}");
        }
    }

    #[test]
    fn warnings_and_quotations_do_not_decide() {
        for aside in [
            "[warn] GPU is lost (retry 1/3)",
            "WARNING: GPU is lost",
            "2026-11-21 02:10:00 INFO docs: GPU is lost",
            "time=\"x\" level=warning msg=\"GPU is lost\"",
            "# error 214: uncorrectable ECC error encountered",
        ] {
            assert_eq!(deciding([aside, "it failed"].into_iter()), ["it failed"]);
            assert_eq!(deciding([aside, "it ended"].into_iter()), [aside, "it ended"]);
        }
        for line in ["gpu-1:2:3 [0] NCCL WARN NET/IB: x", "the info was lost", "warn the user", "ERROR: x"] {
            assert_eq!(deciding([line, "it failed"].into_iter()), [line, "it failed"]);
        }
    }

    #[test]
    fn a_message_about_another_node_or_rank_is_recognized() {
        let own = ["gpu-1.example.org", "train-0"];
        for (message, place) in [
            ("ECC error (reported by node gpu-h100-7)", Some("node gpu-h100-7")),
            ("ECC error on host: ip-10-0-0-7", Some("node ip-10-0-0-7")),
            ("ECC error; peer rank 21 failed", Some("peer rank")),
            ("[rank 30 @ gpu-h100-5] CUDA error: ECC error", Some("rank 30 on node gpu-h100-5")),
            ("[rank 3 @ gpu-1] CUDA error: ECC error", None),
            ("CPU @ 2.40GHz: ECC error", None),
            ("(RayWorker pid=2211, ip=10.4.0.77) NVMLError_GpuIsLost", Some("the Ray worker at 10.4.0.77")),
            ("(RayWorker pid=2211) NVMLError_GpuIsLost", None),
            ("gpu-h200-9: [rank9]: ECC error", Some("node gpu-h200-9")),
            ("gpu-1: [rank9]: ECC error", None),
            ("gpu-h200-9: [rank9]: x\ngpu-1: [rank1]: ECC error", None),
            ("[1,42]<stderr>:gpu-h200-9: ECC error", Some("node gpu-h200-9")),
            ("[1,42]<stderr>:train-0: ECC error", None),
            ("[1,42]<stderr>:RuntimeError: ECC error", None),
            ("ECC error on node gpu-1", None),
            ("ECC error on host train-0", None),
            ("ECC error on node 3", None),
            ("ECC error of the node", None),
            ("not found on the host libcuda.so.1", None),
            ("ECC error in node v18.2", None),
            ("[rank21]: ECC error", None),
        ] {
            assert_eq!(other_place(message, &own).as_deref(), place, "{message}");
        }
    }
}
