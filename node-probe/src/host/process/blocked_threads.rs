//! `add`: finds threads of GPU processes that are in uninterruptible sleep. Source: `/proc/PID/task`.
//!
//! A thread that hangs in the driver is usually not the main thread, because CUDA has its own threads. During every
//! call into the driver and every disk read, a thread is in state `D` for a moment. Therefore, a thread counts only if
//! it is in state `D` at two reads and has not run in between.
//!
//! Limits: there is a maximum number of threads per process and in total. Other threads are only counted. This module
//! reads no file that needs the lock of a process's memory map (`cmdline`, `maps`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use syringe_core::facts::processes::{GpuProcess, Thread, Threads};
use syringe_core::text::clean;

use super::{ThreadState, read_thread};
use crate::files;

/// Pause between the two reads.
const PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of threads of one process. A training process has a few hundred.
const MAX_THREADS: usize = 1024;

/// Maximum time for the first read of all processes, which takes about 15 µs per thread.
const TIME: Duration = Duration::from_millis(500);

/// Maximum number of threads of one process that a report lists.
const MAX_NAMED: usize = 8;

/// Maximum number of threads of the second read, for all processes.
const MAX_WAITING: usize = 256;

/// A thread in state `D` at the first read.
struct Waiting {
    process: usize,
    tid: u32,
    folder: PathBuf,
    look: ThreadState,
}

/// Reads the threads of every process and adds the stuck threads.
pub(in crate::host) fn add(proc: &Path, processes: &mut [GpuProcess]) {
    let started = Instant::now();
    let mut waiting: Vec<Waiting> = Vec::new();
    for (number, process) in processes.iter_mut().enumerate() {
        let folder = proc.join(process.pid.to_string()).join("task");
        let Ok(tids) = files::pids(&folder) else { continue };
        let mut checked = 0;
        for &tid in tids.iter().take(MAX_THREADS).take_while(|_| started.elapsed() < TIME) {
            let folder = folder.join(tid.to_string());
            let look = read_thread(&folder).unwrap_or_default();
            // The thread cannot be read a second time, so it counts as not checked.
            if look.waits && waiting.len() >= MAX_WAITING {
                continue;
            }
            checked += 1;
            if look.waits {
                waiting.push(Waiting { process: number, tid, folder, look });
            }
        }
        let not_checked = count(tids.len().saturating_sub(checked));
        process.threads = Some(Threads { checked: count(checked), not_checked, ..Threads::default() });
    }
    if !waiting.is_empty() {
        std::thread::sleep(PAUSE);
    }
    for thread in waiting {
        let Some(threads) = processes.get_mut(thread.process).and_then(|process| process.threads.as_mut()) else {
            continue;
        };
        if read_thread(&thread.folder).as_ref() != Some(&thread.look) {
            continue;
        }
        threads.uninterruptible += 1;
        if threads.examples.len() < MAX_NAMED {
            threads.examples.push(describe(thread.tid, &thread.folder));
        }
    }
    for process in processes {
        process.threads = process.threads.take().filter(|all| all.uninterruptible > 0 || all.not_checked > 0);
    }
}

fn describe(tid: u32, folder: &Path) -> Thread {
    let text = |file: &str, cap| files::text(&folder.join(file)).map(|text| clean(&text, cap));
    // The kernel writes 0 if the thread is not waiting, or if the reader has no permission.
    Thread { tid, name: text("comm", 40), waits_in: text("wchan", 60).filter(|place| place != "0") }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn thread(tree: &Tree, tid: u32, state: &str, switches: u32) {
        let at = format!("proc/100/task/{tid}");
        tree.file(
            &format!("{at}/stat"),
            format!("{tid} (a) b) {state} 50 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 12345 0"),
        );
        tree.file(
            &format!("{at}/status"),
            format!("Name:\tx\nvoluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t3\n"),
        );
        tree.file(&format!("{at}/comm"), "cuda-EvtHandlr\n").file(&format!("{at}/wchan"), "os_acquire_rwlock_write");
    }

    fn looked(tree: &Tree) -> GpuProcess {
        let mut processes = [GpuProcess { pid: 100, state: Some("S".into()), ..GpuProcess::default() }];
        add(&tree.paths().proc, &mut processes);
        let [process] = processes;
        process
    }

    #[test]
    fn a_worker_thread_that_hangs_is_found_if_the_main_thread_sleeps() {
        let tree = Tree::new();
        thread(&tree, 100, "S", 900);
        thread(&tree, 117, "D", 4);
        let process = looked(&tree);
        let threads = process.threads.clone().expect("one waits");
        assert_eq!((threads.checked, threads.not_checked, threads.uninterruptible), (2, 0, 1));
        let waits_in = Some("os_acquire_rwlock_write".to_owned());
        assert_eq!(threads.examples, [Thread { tid: 117, name: Some("cuda-EvtHandlr".into()), waits_in }]);
        assert!(process.is_uninterruptible() && process.has_task(117) && !process.has_task(118));
    }

    #[test]
    fn a_process_whose_threads_run_or_sleep_has_no_thread_entry() {
        let tree = Tree::new();
        thread(&tree, 100, "S", 900);
        thread(&tree, 117, "R", 4);
        assert_eq!(looked(&tree).threads, None);
    }

    #[test]
    fn a_thread_that_ran_between_the_two_reads_does_not_hang() {
        let tree = Tree::new();
        thread(&tree, 117, "D", 4);
        let (again, writer) = (tree.path().join("proc/100/task/117/status"), PAUSE / 3);
        let writer = std::thread::spawn(move || {
            std::thread::sleep(writer);
            std::fs::write(again, "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t3\n").expect("writes");
        });
        assert_eq!(looked(&tree).threads, None);
        writer.join().expect("ends");
    }

    #[test]
    fn threads_beyond_the_maximum_are_counted() {
        let tree = Tree::new();
        for tid in 0..MAX_THREADS + 5 {
            tree.folder(&format!("proc/100/task/{}", 200 + tid));
        }
        let threads = looked(&tree).threads.expect("not all were looked at");
        assert_eq!((threads.checked as usize, threads.not_checked, threads.uninterruptible), (MAX_THREADS, 5, 0));
    }
}
