//! Functions that format text and facts for evidence. `data`, `name`, `object`, `reason`: clean and shorten text from a node.
//! `time`, `ago`, `process`, `event`: format facts. `gpus`, `about`: a text about one GPU or several GPUs.

use jiff::{SignedDuration, Timestamp};

use crate::finding::Scope;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::facts::rates::Sample;
use syringe_core::text::{clean, clean_keeping_end};

/// Maximum length of a process name, reason or version in evidence.
const NAME_CAP: usize = 60;

/// Cleans and shortens text that comes from the node.
pub(crate) fn data(text: &str) -> String {
    clean(text, NAME_CAP)
}

/// Cleans the name of an API object. Commands need the whole name.
pub(crate) fn name(text: &str) -> String {
    clean(text, 253)
}

/// Formats the name of an API object in its namespace: `namespace/name`.
pub(crate) fn object(namespace: &str, object: &str) -> String {
    format!("{}/{}", name(namespace), name(object))
}

/// Cleans and shortens the path of a file on the node.
pub(crate) fn path(text: &str) -> String {
    clean(text, 160)
}

/// Formats the first names of a list from the node: `a, b`.
pub(crate) fn names(names: impl IntoIterator<Item = impl AsRef<str>>, most: usize) -> String {
    names.into_iter().take(most).map(|name| data(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Maximum length of an error message in evidence.
const REASON_CAP: usize = 160;

/// Formats an error message from the node. The reason is usually at the end, so the middle is cut.
pub(crate) fn reason(text: &str) -> String {
    clean_keeping_end(text, REASON_CAP)
}

/// Formats a time in seconds: `2026-11-21T02:31:07Z`.
pub(crate) fn time(moment: Timestamp) -> String {
    format!("{moment:.0}")
}

/// Formats a duration with one unit: `14 min`, `3 h`, `12 d`.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Formats the time between two readings of a sample: `1.0 s`.
pub(crate) fn window(sample: &Sample) -> String {
    format!("{}.{} s", sample.window_ms / 1000, sample.window_ms % 1000 / 100)
}

/// Formats an age: `14 min ago`. A time in the future is marked, because a clock or time zone is wrong.
pub(crate) fn ago(now: Option<Timestamp>, then: Option<Timestamp>) -> Option<String> {
    /// Tolerance for times in the future: the clock of the kernel log drifts by seconds.
    const DRIFT: SignedDuration = SignedDuration::from_mins(5);
    let age = now?.duration_since(then?);
    if age < -DRIFT {
        return Some(format!("dated {} after the reading", span(-age)));
    }
    Some(format!("{} ago", span(age)))
}

/// Formats a number of events: `1 time`, `4 times`.
pub(crate) fn times(count: u64) -> String {
    if count == 1 { "1 time".to_owned() } else { format!("{count} times") }
}

/// Formats a number of things: `1 GPU`, `8 GPUs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Formats a list of names: `a, b and 3 more`.
pub(crate) fn some(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns the first lines of evidence, and a line with the number of the others: `and 3 more`.
pub(crate) fn lines(all: impl IntoIterator<Item = String>, most: usize) -> Vec<String> {
    let mut shown: Vec<String> = all.into_iter().collect();
    let more = shown.len().saturating_sub(most);
    if more > 0 {
        shown.truncate(most);
        shown.push(format!("and {more} more"));
    }
    shown
}

/// Formats a process: `pid 7 'python3'`.
pub(crate) fn process(process: &GpuProcess) -> String {
    let name = process.name.as_deref().map(|name| format!(" '{}'", data(name))).unwrap_or_default();
    format!("pid {}{name}", process.pid)
}

/// Formats a scope: `GPU 3 (0000:5d:00.0)`. `noun` is the type of the device at the address.
pub(crate) fn place(scope: &Scope, noun: &str) -> String {
    match (scope.gpu, &scope.pci) {
        (Some(index), Some(pci)) => format!("GPU {index} ({})", pci.sysfs()),
        (Some(index), None) => format!("GPU {index}"),
        (None, Some(pci)) => format!("the {noun} at {}", pci.sysfs()),
        (None, None) => format!("the {noun}"),
    }
}

/// Index and name of a GPU.
pub(crate) type Label = (Option<u32>, String);

/// Formats a list of GPUs: `GPUs 0-3, 7`. GPUs without an index are listed by their names.
pub(crate) fn gpus(labels: &[Label]) -> String {
    let mut indices: Vec<u32> = labels.iter().filter_map(|(index, _)| *index).collect();
    indices.sort_unstable();
    indices.dedup();
    let mut parts = Vec::new();
    match indices[..] {
        [] => {}
        [_] if labels.len() == 1 => return labels.iter().map(|(_, label)| label.clone()).collect(),
        _ => parts.push(format!("{} {}", if indices.len() == 1 { "GPU" } else { "GPUs" }, ranges(&indices))),
    }
    parts.extend(labels.iter().filter(|(index, _)| index.is_none()).map(|(_, label)| label.clone()));
    parts.join(", ")
}

/// Verbs whose plural is not the singular without its `s`.
const IRREGULAR: [(&str, &str); 4] = [("is", "are"), ("was", "were"), ("has", "have"), ("does", "do")];

/// Words with a final `s` that are not verbs.
const NO_VERBS: [&str; 6] = ["across", "as", "its", "this", "unless", "versus"];

/// Words about one GPU, each with the words about several GPUs.
const PRONOUNS: [(&str, &str); 17] = [
    ("eset it", "eset them"),
    ("eturn it ", "eturn them "),
    ("return it;", "return them;"),
    ("Watch it.", "Watch them."),
    ("Watch it;", "Watch them;"),
    ("is lost again", "are lost again"),
    ("if it is lost", "if they are lost"),
    (" on it.", " on them."),
    (" on it;", " on them;"),
    (" use it.", " use them."),
    ("its work ", "their work "),
    ("its running work", "their running work"),
    ("its workloads", "their workloads"),
    ("its jobs", "their jobs"),
    ("its power", "their power"),
    ("its seating", "their seating"),
    ("its links", "their links"),
];

/// Writes the names of GPUs from [`gpus`] or [`place`] in the place of `{gpu}`, with the verbs and pronouns in the
/// number of the names.
pub(crate) fn about(text: &str, names: &str) -> String {
    let names = if names.is_empty() { "the GPUs" } else { names };
    let mut parts = text.split("{gpu}");
    let mut written = parts.next().unwrap_or_default().to_owned();
    let is_plural = names == "the GPUs" || names.starts_with("GPUs ") || names.contains(", ");
    for part in parts {
        let starts = written.is_empty() || written.ends_with(". ");
        written.push_str(&if starts { capitalized(names) } else { names.to_owned() });
        written.push_str(&if is_plural { with_plural_verb(part) } else { part.to_owned() });
    }
    match is_plural && text.contains("{gpu}") {
        true => PRONOUNS.iter().fold(written, |text, (one, several)| text.replace(one, several)),
        false => written,
    }
}

/// Returns the text after the names of several GPUs, with its first word in the plural if this is a verb.
fn with_plural_verb(rest: &str) -> String {
    let place = [" of {node}", " on {node}"].into_iter().find(|place| rest.starts_with(place)).unwrap_or_default();
    let after = &rest[place.len()..];
    let Some(word) = after.strip_prefix(' ').and_then(|after| after.split([' ', '.', ',', ';', ':']).next()) else {
        return rest.to_owned();
    };
    let plural = match IRREGULAR.iter().find(|(one, _)| *one == word) {
        Some((_, several)) => several,
        None if NO_VERBS.contains(&word) => word,
        None => word.strip_suffix('s').unwrap_or(word),
    };
    format!("{place} {plural}{}", &after[1 + word.len()..])
}

/// Formats indices as ranges: `0-3, 7`.
pub(crate) fn ranges(sorted: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &number in sorted {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let words = parts.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Formats a memory size: `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const GIB: f64 = 1_073_741_824.0;
    #[expect(clippy::cast_precision_loss, reason = "a size for a person")]
    let gib = bytes as f64 / GIB;
    if gib >= 1.0 { format!("{gib:.1} GiB") } else { format!("{} MiB", bytes >> 20) }
}

/// Returns the name of a kernel event, such as `Xid 79`, `SXid 20034` or `PCIe AER`.
pub fn event_name(event: &KernelEvent) -> String {
    let code = event.code.map(|code| code.to_string()).unwrap_or_default();
    match event.kind {
        Kind::Xid => format!("Xid {code}"),
        Kind::Sxid => format!("SXid {code}"),
        Kind::OffBus => "GPU has fallen off the bus".into(),
        Kind::RmInitFailed => "RmInitAdapter failed".into(),
        Kind::ProbeFailed => "NVIDIA probe routine failed".into(),
        Kind::BarUnassigned => "GPU memory region (BAR) not assigned".into(),
        Kind::NotSupported => "GPU not supported by the driver".into(),
        Kind::ModuleRefused => "kernel module refused".into(),
        Kind::Uvm => "nvidia-uvm error".into(),
        Kind::GspRateLimit => "GSP errors rate-limited".into(),
        Kind::GspFailed => "GSP firmware failure".into(),
        Kind::ApiMismatch => "API mismatch".into(),
        Kind::DriverLoaded => "driver loaded".into(),
        Kind::Assertion if event.sub_code.as_deref() == Some("kernel_crash") => {
            let part = |key: &str, other: &str| data(event.details.get(key).map_or(other, String::as_str));
            format!("kernel in {} of {}", part("place", "a function"), part("module", "an NVIDIA module"))
        }
        Kind::Assertion => "NVRM assertion failed".into(),
        Kind::NvlinkInitFailed => "NVLink did not initialize".into(),
        Kind::PeermemError => "nvidia-peermem error".into(),
        Kind::Aer => "PCIe AER".into(),
        Kind::PcieLink => "PCIe link".into(),
        Kind::Mce => "machine check".into(),
        Kind::OomKill => "out-of-memory kill".into(),
        Kind::HungTask => "task blocked".into(),
        Kind::Segfault => "segmentation fault in a CUDA library".into(),
        Kind::Nic => "network card".into(),
        Kind::Iommu => "IOMMU fault".into(),
        Kind::Host => "host".into(),
    }
}

/// Formats a kernel event: `kernel 2026-11-21T02:31:07Z: Xid 79 (1 time)`, with sub-code and process if known.
pub(crate) fn event(event: &KernelEvent) -> String {
    let when = match (event.first, event.last) {
        (Some(first), Some(last)) if last.duration_since(first).as_secs() > 0 => {
            format!("kernel {} to {}", time(first), time(last))
        }
        (_, Some(last)) => format!("kernel {}", time(last)),
        _ => match event.last_uptime_seconds {
            Some(uptime) => format!("kernel {uptime:.0} s after boot"),
            None => "kernel".to_owned(),
        },
    };
    // The lines of a graphics exception have a reason and no sub-code.
    let reason = event.details.get("reason").map(String::as_str).filter(|_| event.kind == Kind::Xid);
    let sub = event.sub_code.as_deref().filter(|sub| *sub != "kernel_crash").or(reason);
    let sub = sub.map(|sub| format!(" {}", data(sub))).unwrap_or_default();
    let process = match (event.pid, event.process.as_deref()) {
        (Some(pid), Some(name)) => format!(", pid {pid} '{}'", data(name)),
        (Some(pid), None) => format!(", pid {pid}"),
        (None, Some(name)) => format!(", process '{}'", data(name)),
        (None, None) => String::new(),
    };
    let at_least = if event.count_is_lower_bound { "at least " } else { "" };
    let named = event.details.get("named_by").map(|line| format!(", named by {} only", data(line))).unwrap_or_default();
    format!("{when}: {}{sub} ({at_least}{}){process}{named}", event_name(event), times(event.count.max(1)))
}

/// Quotes the last line of a kernel event.
pub(crate) fn kernel_line(event: &KernelEvent) -> String {
    format!("kernel line: {}", clean(&event.raw, 200))
}

/// Returns the text with an upper-case first letter.
pub(crate) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Returns the text with a lower-case first letter, for use within a sentence. Abbreviations such as `NVML` are not
/// changed.
pub(crate) fn uncapitalized(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_listed_in_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 5, 6, 9]), "0-3, 5, 6, 9");
        let label = |index| (Some(index), format!("GPU {index} (0000:0{index}:00.0)"));
        assert_eq!(gpus(&[label(0), label(1), label(2)]), "GPUs 0-2");
        assert_eq!(gpus(&[label(1)]), "GPU 1 (0000:01:00.0)");
        assert_eq!(gpus(&[label(1), (None, "the GPU at x".into())]), "GPU 1, the GPU at x");
    }

    #[test]
    fn a_text_about_several_gpus_is_in_the_plural() {
        for (text, one, several) in [
            (
                "so that {gpu} gets no new work.",
                "so that GPU 2 gets no new work.",
                "so that GPUs 2, 3 get no new work.",
            ),
            ("until {gpu} has cooled", "until GPU 2 has cooled", "until GPUs 2, 3 have cooled"),
            (
                "{gpu} of {node} works. Watch it.",
                "GPU 2 of {node} works. Watch it.",
                "GPUs 2, 3 of {node} work. Watch them.",
            ),
            ("use {gpu} as before", "use GPU 2 as before", "use GPUs 2, 3 as before"),
            ("Drain {node} and reset {gpu}.", "Drain {node} and reset GPU 2.", "Drain {node} and reset GPUs 2, 3."),
            ("power-cycle it.", "power-cycle it.", "power-cycle it."),
        ] {
            assert_eq!(about(text, "GPU 2"), one);
            assert_eq!(about(text, "GPUs 2, 3"), several);
        }
        assert_eq!(about("Watch {gpu} of {node}.", ""), "Watch the GPUs of {node}.");
        assert_eq!(
            about("{gpu}: drain. {gpu} is old", "the NVSwitch at x"),
            "The NVSwitch at x: drain. The NVSwitch at x is old"
        );
    }

    #[test]
    fn a_long_reason_keeps_its_end() {
        let told = reason(&format!("nvmlDeviceGetHandleByIndex_v2: {}Unknown Error", "a layer: ".repeat(40)));
        assert!(told.starts_with("nvmlDevice") && told.ends_with("Unknown Error"), "{told}");
        assert!(told.chars().count() <= REASON_CAP);
    }

    #[test]
    fn ages_have_one_unit() {
        let of = |seconds| span(SignedDuration::from_secs(seconds));
        assert_eq!([of(-3), of(14), of(840), of(10_800), of(1_036_800)], ["0 s", "14 s", "14 min", "3 h", "12 d"]);
    }

    #[test]
    fn a_time_after_the_reading_is_no_age() {
        let at = |time: &str| time.parse::<Timestamp>().ok();
        let now = at("2026-11-21T00:00:00Z");
        assert_eq!(ago(now, at("2026-12-31T00:00:00Z")).as_deref(), Some("dated 40 d after the reading"));
        assert_eq!(ago(now, at("2026-11-21T00:00:09Z")).as_deref(), Some("0 s ago"), "clocks drift");
        assert_eq!(ago(now, at("2026-11-20T21:00:00Z")).as_deref(), Some("3 h ago"));
    }

    #[test]
    fn an_event_is_quoted_with_time_count_and_process() {
        let last = "2026-11-21T02:31:07.25Z".parse().ok();
        let quoted = event(&KernelEvent {
            code: Some(31),
            count: 2,
            last,
            first: last,
            pid: Some(7),
            process: Some("ray::\u{1b}Worker".into()),
            ..KernelEvent::default()
        });
        assert_eq!(quoted, "kernel 2026-11-21T02:31:07Z: Xid 31 (2 times), pid 7 'ray:: Worker'");
    }
}
