//! `read`: finds the signal that ended a child process, and its rank (`ChildSignal`), in messages of torchrun,
//! accelerate, DeepSpeed or Python.
//!
//! The launcher only reports that its child ended. The child itself has no last message, because the kernel ended it.

/// Signals that end a process: number, name, the usual reason.
const SIGNALS: [(u8, &str); 8] = [
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (15, "SIGTERM"),
    (31, "SIGSYS"),
];

/// Text before the number or the name of a signal. In an exit code, the number is negative.
const BEFORE: [&str; 8] = [
    "traceback : signal ",
    "exitcode: -",
    "exitcode  : -",
    "return code = -",
    "exit code -",
    "died with <signals.",
    "terminated with signal ",
    "terminated by signal ",
];

/// The end of a child process by a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildSignal<'l> {
    pub(crate) name: &'static str,
    /// Rank of the child in its job, if the launcher names it.
    pub(crate) rank: Option<&'l str>,
    /// The line that reports the signal.
    pub(crate) line: &'l str,
}

/// Returns the first signal that ended a child process, from the lines of its launcher, oldest first. After the first
/// failure, a launcher ends the other children with SIGTERM.
pub(crate) fn read<'l>(lines: &[&'l str]) -> Option<ChildSignal<'l>> {
    let signals = lines.iter().enumerate().filter_map(|(at, line)| Some((at, *line, signal_of(line)?)));
    // torchrun repeats the first failure at the end of its output, under this heading.
    let root = lines.iter().rposition(|line| line.starts_with("Root Cause")).unwrap_or(0);
    let signals: Vec<_> = signals.filter(|(.., name)| *name != "SIGTERM").collect();
    let (at, line, name) = signals.iter().find(|(at, ..)| *at >= root).or_else(|| signals.first()).copied()?;
    let near = &lines[at.saturating_sub(NEAR)..(at + 1).min(lines.len())];
    let rank = rank_of(line).or_else(|| near.iter().rev().find_map(|line| rank_of(line)));
    Some(ChildSignal { name, rank, line })
}

/// Maximum number of lines between the rank and the signal of a child in the table of torchrun.
const NEAR: usize = 5;

fn signal_of(line: &str) -> Option<&'static str> {
    let lower = line.to_ascii_lowercase();
    let rest = BEFORE.iter().find_map(|words| Some(lower.split_once(words)?.1))?;
    let word = &rest[..rest.find(|one: char| !one.is_ascii_alphanumeric()).unwrap_or(rest.len())];
    let is_it = |(number, name): &&(u8, &str)| word.parse() == Ok(*number) || word.eq_ignore_ascii_case(name);
    SIGNALS.iter().find(is_it).map(|(_, name)| *name)
}

/// Returns the rank that a line of a launcher names: `rank      : 3 (local_rank: 3)`, `local_rank: 3 (pid: 271)`,
/// `process 3 terminated`.
fn rank_of(line: &str) -> Option<&str> {
    let rest = ["rank      : ", "local_rank: ", "process "].iter().find_map(|words| Some(line.split_once(words)?.1))?;
    let digits = &rest[..rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len())];
    (!digits.is_empty()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::{ChildSignal, read};

    #[test]
    fn the_signal_and_the_rank_of_a_child_are_read() {
        for (text, name, rank) in [
            (
                "ChildFailedError:\nRoot Cause (first observed failure):\n  rank      : 3 (local_rank: 3)\n  exitcode  : -9 (pid: 271)\n  \
                 traceback : Signal 9 (SIGKILL) received by PID 271",
                "SIGKILL",
                Some("3"),
            ),
            ("failed (exitcode: -7) local_rank: 5 (pid: 1) of binary: python", "SIGBUS", Some("5")),
            ("[launch.py:325:sigkill_handler] exits with return code = -11", "SIGSEGV", None),
            ("subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>.", "SIGKILL", None),
            (
                "torch.multiprocessing.spawn.ProcessExitedException: process 3 terminated with signal SIGABRT",
                "SIGABRT",
                Some("3"),
            ),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            let found = read(&lines).unwrap_or_else(|| panic!("{text}"));
            let ChildSignal { name: of_child, rank: of_rank, .. } = found;
            assert_eq!((of_child, of_rank), (name, rank), "{text}");
        }
    }

    #[test]
    fn a_child_that_its_launcher_ended_is_no_failure() {
        for text in [
            "failed (exitcode: -15) local_rank: 0 (pid: 7)",
            "failed (exitcode: 1) local_rank: 0 (pid: 7)",
            "exit code -90",
            "signal processing finished",
        ] {
            assert_eq!(read(&[text]), None, "{text}");
        }
        let both = ["failed (exitcode: -15) local_rank: 0 (pid: 7)", "failed (exitcode: -9) local_rank: 1 (pid: 8)"];
        assert_eq!(read(&both).and_then(|found| found.rank), Some("1"));
    }
}
