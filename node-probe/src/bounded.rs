//! `in_time`: reads files and folders with a deadline. `fault`: makes reads block in tests.
//! `begin`, `take_problems` and others: collect the problems of these reads for each section.
//!
//! A hung device, file system or process can block its reader forever, and no signal interrupts the reader. Therefore,
//! each read runs in a helper thread of its caller. A helper that does not return in time is abandoned: it stops when
//! the process exits.
//!
//! ```text
//!   section thread: begin(deadline) ─▶ in_time(path, read) ─▶ … ─▶ take_problems() ─▶ problems of its section
//!                                          └─▶ helper thread: read
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use syringe_core::report::{Problem, Section};
use syringe_core::text::clean_keeping_end;

/// Maximum time for one read. Kernel files take microseconds; the configuration space of a sleeping device takes 0.1 s.
const READ_TIME: Duration = Duration::from_secs(1);
/// Divisor of a section's time. The result is the total time that blocked reads of the section may wait.
const BLOCKED_PART: u32 = 2;
/// Maximum time for one read after the blocked reads have used their part. Files that do not block are still read.
const SHORT_TIME: Duration = Duration::from_millis(50);
/// Time that is reserved between the last read and the deadline of a section.
const ANSWER_TIME: Duration = Duration::from_millis(250);
/// Maximum number of threads that blocked reads may leave behind. If there are more, all reads fail.
const MAX_ABANDONED: usize = 64;
/// Maximum number of problems that one section lists; the others are counted.
const MAX_PROBLEMS: usize = 16;
/// Maximum length of a path in a problem. The end of the path is kept, because it identifies the file.
const MAX_PATH: usize = 300;

/// Paths whose read blocks. No thread reads these paths again.
static BLOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Helper threads that were left behind.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static READER: RefCell<Reader> = RefCell::new(Reader::new(READ_TIME * BLOCKED_PART * 2, None));
    /// Whether this thread reads without a helper thread. True in helper threads, and in child processes with one thread.
    static DIRECT: Cell<bool> = const { Cell::new(false) };
}

/// The state of one thread that reads.
struct Reader {
    helper: Option<Sender<Job>>,
    read_time: Duration,
    /// Time that blocked reads may still wait.
    left: Duration,
    /// Time after which nothing is read.
    end: Option<Instant>,
    named: BTreeSet<PathBuf>,
    problems: Vec<Problem>,
    more: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl Reader {
    fn new(time: Duration, end: Option<Instant>) -> Self {
        let left = time / BLOCKED_PART;
        let read_time = READ_TIME.min(left / 2);
        Self { helper: None, read_time, left, end, named: BTreeSet::new(), problems: Vec::new(), more: 0 }
    }

    /// Runs `job` in the helper thread; `false` if no thread could be started.
    fn send(&mut self, mut job: Job) -> bool {
        if let Some(helper) = &self.helper {
            match helper.send(job) {
                Ok(()) => return true,
                Err(back) => job = back.0,
            }
        }
        let (sender, jobs) = channel::<Job>();
        let run = move || {
            DIRECT.set(true);
            jobs.into_iter().for_each(|job| job());
        };
        let started = thread::Builder::new().name("read".into()).spawn(run).is_ok();
        if started {
            let _ = sender.send(job);
            self.helper = Some(sender);
        }
        started
    }

    fn note(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS { self.problems.push(problem) } else { self.more += 1 }
    }

    /// Notes once that reading `path` blocks.
    fn note_blocked(&mut self, path: &Path, why: String) -> io::Error {
        if self.named.insert(path.to_owned()) {
            let next_step =
                "A device, a file system or a process hangs. Check the kernel log and processes in state D.";
            self.note(problem("read_blocked", path, &why, next_step));
        }
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Returns the time for the next read; `None` if the read must not start.
    fn time(&self) -> Option<Duration> {
        let time = if self.left.is_zero() { SHORT_TIME } else { self.read_time.min(self.left) };
        let time = self.end.map_or(time, |end| time.min(end.saturating_duration_since(Instant::now())));
        (!time.is_zero() && (cfg!(test) || ABANDONED.load(Ordering::Relaxed) < MAX_ABANDONED)).then_some(time)
    }
}

/// Starts the reads of a section, whose time limit is `time`.
pub(crate) fn begin(time: Duration) {
    // The last part of the time is reserved for sending the result.
    let end = Instant::now() + time - (time / 8).min(ANSWER_TIME);
    READER.with_borrow_mut(|reader| *reader = Reader { helper: reader.helper.take(), ..Reader::new(time, Some(end)) });
}

/// Makes this thread read without helper threads from now on. This is for child processes: the parent limits their time, and
/// privileges can only be dropped while a process has one thread.
pub(crate) fn read_directly() {
    DIRECT.set(true);
}

/// Runs `read`, which reads `path`, and returns its result. If the read does not return in time, notes a problem with the
/// path and returns an error of kind [`io::ErrorKind::TimedOut`].
pub(crate) fn in_time<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    in_time_of(READ_TIME, path, read)
}

/// Works like [`in_time`], but with a shorter time limit.
pub(crate) fn in_time_of<T: Send + 'static>(
    most: Duration,
    path: &Path,
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    #[cfg(test)]
    let read = fault::wrap(path, read);
    if DIRECT.get() {
        return read();
    }
    if lock().contains(path) {
        return Err(READER.with_borrow_mut(|reader| reader.note_blocked(path, "its read blocks".into())));
    }
    let Some((result, time)) = READER.with_borrow_mut(|reader| {
        let time = reader.time()?.min(most);
        let (sender, result) = channel();
        reader.send(Box::new(move || drop(sender.send(read())))).then_some((result, time))
    }) else {
        let why = "not read: other reads took all the time of this section".to_owned();
        return Err(READER.with_borrow_mut(|reader| reader.note_blocked(path, why)));
    };
    receive(&result, path, time)
}

fn receive<T>(result: &Receiver<io::Result<T>>, path: &Path, time: Duration) -> io::Result<T> {
    match result.recv_timeout(time) {
        Ok(result) => result.inspect_err(|error| {
            // Callers treat most errors as a file that does not exist, so these errors are noted here.
            if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) {
                note("no_descriptor", path, error, "");
            }
        }),
        // The read panicked.
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the read failed")),
        Err(RecvTimeoutError::Timeout) => {
            ABANDONED.fetch_add(1, Ordering::Relaxed);
            lock().insert(path.to_owned());
            Err(READER.with_borrow_mut(|reader| {
                reader.helper = None;
                reader.left = reader.left.saturating_sub(time);
                reader.note_blocked(path, format!("the read did not return within {} ms", time.as_millis()))
            }))
        }
    }
}

/// Adds a problem to the section that this thread reads.
pub(crate) fn note(code: &str, path: &Path, why: impl Display, next_step: &str) {
    READER.with_borrow_mut(|reader| {
        if reader.named.insert(path.to_owned()) {
            reader.note(problem(code, path, &why.to_string(), next_step));
        }
    });
}

/// Cuts a list to `most` entries, and notes how many were left out. `what`: the name of the entries, in the plural.
pub(crate) fn cut<T>(list: &mut Vec<T>, most: usize, what: &str) {
    let all = list.len();
    if all > most {
        list.truncate(most);
        note_cut(what, all, most);
    }
}

/// Notes that only `most` of `all` entries are in the report.
pub(crate) fn note_cut(what: &str, all: usize, most: usize) {
    let why = format!("there are {all}, but the report contains only {most}");
    let problem = Problem { what: what.to_owned(), why, code: "too_many".to_owned(), ..Problem::default() };
    READER.with_borrow_mut(|reader| reader.note(problem));
}

/// Returns the problems of the reads since the last call.
pub(crate) fn take_problems() -> Vec<Problem> {
    READER.with_borrow_mut(|reader| {
        reader.named.clear();
        let mut problems = std::mem::take(&mut reader.problems);
        let more = std::mem::take(&mut reader.more);
        if more > 0 {
            problems.push(Problem {
                what: format!("{more} more files"),
                why: "not read".into(),
                code: "read_blocked".into(),
                ..Problem::default()
            });
        }
        problems
    })
}

/// Adds the problems of the reads to a section.
pub(crate) fn add_problems<T>(section: &mut Section<T>) {
    section.add_problems(take_problems());
}

fn problem(code: &str, path: &Path, why: &str, next_step: &str) -> Problem {
    Problem {
        what: clean_keeping_end(&path.to_string_lossy(), MAX_PATH),
        why: why.to_owned(),
        next_step: next_step.to_owned(),
        gpu: None,
        code: code.to_owned(),
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    BLOCKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Functions for tests: they make reads block forever, and list the paths that were read.
#[cfg(test)]
pub(crate) mod fault {
    use super::{BTreeSet, Mutex, Path, PathBuf, PoisonError, io, thread};

    static BLOCKS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    static READS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    /// Makes every read of this path block forever.
    pub(crate) fn block(path: &Path) {
        BLOCKS.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    }

    /// Returns the paths below `root` in the order in which they were read.
    pub(crate) fn reads_below(root: &Path) -> Vec<PathBuf> {
        let reads = READS.lock().unwrap_or_else(PoisonError::into_inner);
        reads.iter().filter(|path| path.starts_with(root)).cloned().collect()
    }

    pub(super) fn wrap<T, F>(path: &Path, read: F) -> impl FnOnce() -> io::Result<T> + use<T, F>
    where
        F: FnOnce() -> io::Result<T>,
    {
        READS.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        move || {
            if blocks {
                loop {
                    thread::park();
                }
            }
            read()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_read_ends_in_time_and_is_a_problem_that_names_the_path() {
        begin(Duration::from_secs(4));
        let path = Path::new("/bounded-test/blocked");
        fault::block(path);
        let started = Instant::now();
        let result = in_time(path, || Ok(()));
        assert_eq!(result.expect_err("blocked").kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(
            in_time(Path::new("/bounded-test/other"), || Ok(7)).ok(),
            Some(7),
            "a new helper reads the next file"
        );
        let again = Instant::now();
        assert!(in_time(path, || Ok(())).is_err() && again.elapsed() < Duration::from_millis(100), "not read again");
        let problems = take_problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((problems[0].code.as_str(), problems[0].what.as_str()), ("read_blocked", "/bounded-test/blocked"));
        assert_eq!(take_problems(), []);
    }

    #[test]
    fn many_blocked_reads_share_a_limit_and_the_rest_is_counted() {
        begin(Duration::from_secs(4));
        let started = Instant::now();
        for number in 0..MAX_PROBLEMS + 4 {
            let path = PathBuf::from(format!("/bounded-test/many/{number}"));
            fault::block(&path);
            assert!(in_time(&path, || Ok(())).is_err());
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let problems = take_problems();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        assert_eq!(problems[MAX_PROBLEMS].what, "4 more files");
        // Several reads are tried: on a busy machine, a helper thread may not run at all within the time limit of one
        // read.
        let other = |number| in_time(&PathBuf::from(format!("/bounded-test/many/other/{number}")), || Ok(7)).ok();
        assert_eq!((0..100).find_map(other), Some(7), "other files are still read");
    }

    #[test]
    fn after_the_time_of_the_section_nothing_is_read() {
        begin(Duration::from_millis(40));
        thread::sleep(Duration::from_millis(50));
        let path = Path::new("/bounded-test/late");
        assert!(in_time(path, || Ok(())).is_err());
        assert_eq!(take_problems().len(), 1);
        begin(Duration::from_secs(4));
        assert!(in_time(path, || Ok(())).is_ok(), "a file that was not read does not count as blocked");
    }

    #[test]
    fn a_missing_descriptor_is_a_problem_and_no_missing_file() {
        begin(Duration::from_secs(4));
        let path = Path::new("/bounded-test/descriptor");
        for (error, problems) in [(Errno::MFILE, 1), (Errno::NFILE, 1), (Errno::NOENT, 0)] {
            assert!(in_time::<()>(path, move || Err(error.into())).is_err());
            assert_eq!(take_problems().len(), problems, "{error}");
        }
    }

    #[test]
    fn a_child_process_reads_without_threads() {
        let own = thread::spawn(|| {
            read_directly();
            let reader = thread::current().id();
            in_time(Path::new("/bounded-test/direct"), move || Ok(thread::current().id() == reader)).ok()
        });
        assert_eq!(own.join().ok().flatten(), Some(true));
    }

    /// Returns the source code of a file, without its tests and comments.
    fn code(path: &Path) -> String {
        let text = std::fs::read_to_string(path).expect("a source file");
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn the_host_is_only_read_with_a_deadline() {
        // The code in these files reads in a closure of `in_time`, or in a child process that is killed after a time
        // limit.
        const OTHERS: [&str; 4] = ["open_device_files.rs", "nvidia_stack.rs", "container_devices.rs", "cards.rs"];
        const DIRECT: [&str; 12] = [
            "fs::read",
            "fs::metadata",
            "fs::symlink_metadata",
            "fs::canonicalize",
            "fs::exists",
            "File::open",
            "OpenOptions",
            ".exists()",
            "\").is_dir()",
            "\").is_file()",
            ".read_link()",
            ".output()",
        ];
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let host = sources(&source.join("host")).into_iter();
        let files = host.chain([source.join("paths.rs")]);
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read: Vec<PathBuf> =
            files.filter(|path| !name(path).contains("tests") && !OTHERS.contains(&&*name(path))).collect();
        assert!(read.len() > 30, "{read:?}");
        for path in read {
            let code = code(&path);
            let direct = DIRECT.iter().find(|call| code.contains(**call));
            assert_eq!(direct, None, "{}: use crate::files", path.display());
        }
    }
}
