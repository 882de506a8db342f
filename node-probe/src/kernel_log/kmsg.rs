//! `drain`: reads the kernel's ring buffer from `/dev/kmsg`, one record per read, oldest first, without waiting.
//! `clocks`: the time since boot, and the wall-clock time of boot.
//!
//! Source: the kernel's `dev-kmsg` documentation. Reading does not consume records.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use syringe_core::kernel_log::{Clock, EventLog, record_parser};

/// Initial size of the buffer. Records have up to 8 KiB, or more if they have long dictionaries.
const BUFFER: usize = 16 * 1024;

/// Maximum size of the buffer, which grows if a record does not fit.
const MAX_BUFFER: usize = 1024 * 1024;

/// Time limit. The largest ring buffers (16 MiB, 200,000 records) need a fraction of this time.
pub(super) const TIME: Duration = Duration::from_secs(2);

/// Tolerance for the clock of the records, which differs from the monotonic clock by a few milliseconds.
const DRIFT_US: u64 = 1_000_000;

/// The reason why a read stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All records that existed at the start of the read were read.
    Complete,
    /// The time limit was reached.
    TimeUp,
}

/// The result of the read, apart from the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drained {
    pub(super) end: End,
    /// Whether the first record of this boot was still in the buffer.
    pub(super) since_boot: bool,
}

/// Microseconds since boot, and the wall-clock time of boot.
pub(super) fn clocks() -> (u64, Clock) {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Timestamp::now();
    let microseconds = monotonic.tv_sec.saturating_mul(1_000_000).saturating_add(monotonic.tv_nsec / 1000);
    let boot = Timestamp::from_microsecond(now.as_microsecond().saturating_sub(microseconds));
    (u64::try_from(microseconds).unwrap_or_default(), Clock { boot_wall_time: boot.unwrap_or(Timestamp::UNIX_EPOCH) })
}

/// Reads every record in the buffer. `began`: microseconds since boot at the start of the read; later records are ignored.
pub(super) fn drain(device: &mut impl Read, log: &mut EventLog, began: u64, time: Duration) -> io::Result<Drained> {
    let started = Instant::now();
    let mut buffer = vec![0; BUFFER];
    let mut first = None;
    let done = |end, first: Option<u64>| Ok(Drained { end, since_boot: first == Some(0) });
    loop {
        match device.read(&mut buffer) {
            Ok(0) => return done(End::Complete, first),
            Ok(length) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                let Some(record) = record_parser::parse_kmsg(&text) else { continue };
                log.push_record(&record);
                first = first.or(record.seq);
                // The read stops at the first record after the start of the read, because the kernel may print faster
                // than this function reads.
                if record.uptime_us.is_some_and(|at| at > began.saturating_add(DRIFT_US)) {
                    return done(End::Complete, first);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return done(End::Complete, first),
                // The record was overwritten during the read: the position has advanced, and the sequence numbers show the
                // gap.
                ErrorKind::BrokenPipe | ErrorKind::Interrupted => {}
                ErrorKind::InvalidInput if buffer.len() < MAX_BUFFER => buffer.resize(buffer.len() * 2, 0),
                _ => return Err(error),
            },
        }
        if started.elapsed() > time {
            return done(End::TimeUp, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::kernel_log::Options;

    const LONG: Duration = Duration::from_secs(60);

    /// A device that returns one item per read, then `WouldBlock`.
    struct Device(Vec<Result<String, ErrorKind>>);

    impl Read for Device {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            if self.0[0].as_ref().is_ok_and(|record| record.len() > buffer.len()) {
                return Err(ErrorKind::InvalidInput.into());
            }
            let record = self.0.remove(0)?;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    fn xid(seq: u64, at: u64) -> Result<String, ErrorKind> {
        Ok(format!("3,{seq},{at},-;NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.\n"))
    }

    fn log() -> EventLog {
        EventLog::new(None, Options::default())
    }

    #[test]
    fn the_read_ends_at_the_end_of_the_buffer_without_waiting() {
        let (mut log, mut device) = (log(), Device(vec![xid(0, 10), xid(1, 20)]));
        let drained = drain(&mut device, &mut log, 100, LONG).expect("it ends");
        assert_eq!(drained, Drained { end: End::Complete, since_boot: true });
        assert_eq!(log.finish().coverage[0].records, 2);
    }

    #[test]
    fn overwritten_records_are_counted_as_lost_and_reading_goes_on() {
        let (mut log, mut device) = (log(), Device(vec![xid(7, 10), Err(ErrorKind::BrokenPipe), xid(50, 20)]));
        let drained = drain(&mut device, &mut log, 100, LONG).expect("it ends");
        assert!(!drained.since_boot);
        let facts = log.finish();
        assert_eq!((facts.coverage[0].records, facts.coverage[0].lost_records), (2, 42));
    }

    #[test]
    fn a_record_larger_than_the_buffer_is_read_with_a_larger_one() {
        let long = Ok(format!("6,1,11,-;x\n KEY={}\n", "y".repeat(3 * BUFFER)));
        let (mut log, mut device) = (log(), Device(vec![xid(0, 10), long, xid(2, 12)]));
        drain(&mut device, &mut log, 100, LONG).expect("it ends");
        assert_eq!(log.finish().coverage[0].records, 3);
        let (mut log, mut device) = (self::log(), Device(vec![Ok("x".repeat(2 * MAX_BUFFER))]));
        assert!(drain(&mut device, &mut log, 100, LONG).is_err());
    }

    #[test]
    fn the_read_ends_even_if_the_kernel_never_stops_printing() {
        let (mut log, mut device) = (log(), Device((0..100).map(|at| xid(at, at * 100_000)).collect()));
        drain(&mut device, &mut log, 2_000_000, LONG).expect("it ends");
        assert_eq!(log.finish().coverage[0].records, 32, "records up to one second after the start count");
        let (mut log, mut device) = (self::log(), Device((0..100).map(|at| xid(at, 1)).collect()));
        let drained = drain(&mut device, &mut log, 100, Duration::ZERO).expect("it ends");
        assert_eq!(drained.end, End::TimeUp);
    }
}
