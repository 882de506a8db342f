//! `hold`: keeps the container of the probe running. `release`: stops the hold from inside the container.
//!
//! A probe pod is deleted together with its hold. An ephemeral container cannot be deleted, so it must exit on its own. No
//! signal is used, because the hold may be the first process of its PID namespace, and such a process ignores signals
//! without a handler.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The file that stops a releasable hold. The file is in the writable layer of the container and is deleted with it.
pub const RELEASE_FILE: &str = "/tmp/.node-probe-released";

/// Pause between two checks of whether the file exists.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits for `time`, or until the hold is released.
pub(crate) fn hold(time: Duration, releasable: bool) {
    if releasable {
        wait(time, Path::new(RELEASE_FILE));
    } else {
        thread::sleep(time);
    }
}

fn wait(time: Duration, released: &Path) {
    let end = Instant::now() + time;
    while Instant::now() < end && !released.exists() {
        thread::sleep(LOOK_EVERY);
    }
}

/// Stops the hold of this container; `false` if the file cannot be written.
pub(crate) fn release() -> bool {
    std::fs::create_dir_all("/tmp").and_then(|()| std::fs::write(RELEASE_FILE, b"")).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    fn a_hold_ends_when_it_is_released_and_not_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("released");
        let began = Instant::now();
        super::wait(Duration::from_millis(120), &file);
        assert!(began.elapsed() >= Duration::from_millis(120));
        std::fs::write(&file, b"").expect("written");
        let began = Instant::now();
        super::wait(Duration::from_secs(60), &file);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
