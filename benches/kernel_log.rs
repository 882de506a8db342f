//! Benchmark of the kernel log parser: lines per second for the log of a busy node and for storms of errors.
//!
//! Run `cargo bench -p syringe-core --bench kernel_log`. Criterion's "elem/s" is lines per second on one core.

#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::kernel_log::record_parser::parse_kmsg;
use syringe_core::kernel_log::{Clock, EventLog, Options};

/// Kernel lines of a busy Kubernetes node, the most frequent first. No line concerns a GPU.
const NOISE: [&str; 14] = [
    "audit: type=1400 audit(1740327858.123:4711): apparmor=\"DENIED\" operation=\"ptrace\" class=\"ptrace\" profile=\"cri-containerd.apparmor.d\" pid=31337",
    "IPv6: ADDRCONF(NETDEV_CHANGE): lxc4f2a0b7d1e55: link becomes ready",
    "eth0: renamed from tmp1a2b3",
    "cni0: port 17(veth5e1f0a2b) entered blocking state",
    "cni0: port 17(veth5e1f0a2b) entered forwarding state",
    "device veth5e1f0a2b entered promiscuous mode",
    "EXT4-fs (nvme1n1p1): mounted filesystem with ordered data mode. Opts: (null). Quota mode: none.",
    "perf: interrupt took too long (3143 > 3133), lowering kernel.perf_event_max_sample_rate to 63000",
    "TCP: request_sock_TCP: Possible SYN flooding on port 8080. Sending cookies.  Check SNMP counters.",
    "nvme nvme0: 64/0/0 default/read/poll queues",
    "mlx5_core 0000:5d:00.0 ib0: Link up",
    "systemd[1]: kubelet.service: Scheduled restart job, restart counter is at 3.",
    "overlayfs: upperdir is in-use as upperdir/workdir of another mount, accessing files from both mounts will result in undefined behavior.",
    "python3[31337]: segfault at 8 ip 00007f5cb9d0a6c1 sp 00007ffd4a2c5e10 error 4 in _ext.so[7f5cb9d00000+20000]",
];

/// Lines about GPUs and other faults: one line in a hundred.
const NEWS: [&str; 6] = [
    "NVRM: Xid (PCI:0000:38:00): 43, pid=2924364, name=pt_main_thread, Ch 00000008",
    "NVRM: Xid (PCI:0000:0a:00): 31, pid=13332, name=python3, Ch 00000010, intr 00000000. MMU Fault: ENGINE CE2 HUBCLIENT_CE0 faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    "pcieport 0000:00:03.0: AER: Corrected error received: 0000:00:03.0",
    "NVRM: Xid (PCI:0018:01:00): 145, pid=876767, name=ray::WorkerDict, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008 0x00000001 0x00000000 0x00100000 0x00000004)",
    "Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1kB, anon-rss:2kB, file-rss:3kB",
    "nvidia-nvswitch1: SXid (PCI:0000:0a:00.0): 22013, Non-fatal, Link 57 Minion Link DLREQ interrupt",
];

/// A function that creates the log line with a given number.
type Spelling = fn(usize) -> String;

const LINES: usize = 100_000;

fn body(at: usize) -> &'static str {
    if at % 100 == 99 { NEWS[at / 100 % NEWS.len()] } else { NOISE[at % NOISE.len()] }
}

fn kmsg(at: usize) -> String {
    format!("{},{at},{},-;{}", 3 + at % 4, 1_000_000 + at * 1500, body(at))
}

fn dmesg(at: usize) -> String {
    let time = 1_000_000 + at * 1500;
    format!("[{:5}.{:06}] {}", time / 1_000_000, time % 1_000_000, body(at))
}

fn syslog(at: usize) -> String {
    format!("2025-02-23T16:{:02}:{:02}.123456+00:00 gpu-1 kernel: {}", at / 60 % 60, at % 60, body(at))
}

fn journal(at: usize) -> String {
    let text = body(at).replace('"', "\\\"");
    let time = 1_740_327_858_123_456 + at;
    format!(
        "{{\"__REALTIME_TIMESTAMP\":\"{time}\",\"_BOOT_ID\":\"c0ffee\",\"_TRANSPORT\":\"kernel\",\"SYSLOG_FACILITY\":\"0\",\
         \"PRIORITY\":\"6\",\"SYSLOG_IDENTIFIER\":\"kernel\",\"_HOSTNAME\":\"gpu-1\",\"MESSAGE\":\"{text}\"}}"
    )
}

/// Creates a line of a storm with 29 distinct events. The text of each line is different, because it contains another
/// address.
fn storm(at: usize) -> String {
    let gpu = at % 29;
    format!(
        "3,{at},{},-;NVRM: Xid (PCI:0000:{gpu:02x}:00): 31, pid=13332, name=python3, Ch 00000010, intr 00000000. MMU Fault: \
         ENGINE CE2 HUBCLIENT_CE0 faulted @ 0x7f29_{at:08x}. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
        1_000_000 + at * 10
    )
}

/// Creates a line of a storm in which the same texts repeat, as in NVLink storms.
fn repeating_storm(at: usize) -> String {
    let link = at % 29;
    format!(
        "3,{at},{},-;NVRM: Xid (PCI:0018:01:00): 145, RLW_RXPIPE Nonfatal XC0 i0 Link {link:02} (0x0409a0c2 0x00000008 \
         0x00000001 0x00000000 0x00100000 0x00000004)",
        1_000_000 + at * 10
    )
}

fn empty() -> EventLog {
    let clock = Clock { boot_wall_time: Timestamp::UNIX_EPOCH };
    EventLog::new(Some(clock), Options::default())
}

fn read_kmsg(records: &[String]) -> KernelLog {
    let mut log = empty();
    records.iter().filter_map(|record| parse_kmsg(record)).for_each(|record| log.push_record(&record));
    log.finish()
}

fn read_lines(lines: &[String]) -> KernelLog {
    let mut log = empty();
    lines.iter().for_each(|line| log.push_line(line));
    log.finish()
}

fn mixed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mixed");
    group.throughput(Throughput::Elements(LINES as u64)).sample_size(20);
    let spellings: [(&str, Spelling); 4] =
        [("kmsg", kmsg), ("dmesg", dmesg), ("syslog", syslog), ("journal_json", journal)];
    for (name, spelling) in spellings {
        let lines: Vec<String> = (0..LINES).map(spelling).collect();
        let read = if name == "kmsg" { read_kmsg } else { read_lines };
        assert_eq!(read(&lines).events.len(), 6, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| read(black_box(&lines))));
    }
    group.finish();
}

fn storms(criterion: &mut Criterion) {
    const STORM: usize = 800_000;
    let mut group = criterion.benchmark_group("storm_of_800000_lines");
    group.throughput(Throughput::Elements(STORM as u64)).sample_size(10);
    let kinds: [(&str, Spelling); 2] = [("every_text_new", storm), ("texts_repeat", repeating_storm)];
    for (name, spelling) in kinds {
        let lines: Vec<String> = (0..STORM).map(spelling).collect();
        assert_eq!(read_kmsg(&lines).events.len(), 29, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| read_kmsg(black_box(&lines))));
    }
    group.finish();
}

criterion_group!(benches, mixed, storms);
criterion_main!(benches);
