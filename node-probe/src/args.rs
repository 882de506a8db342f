//! What can be typed after `node-probe`: words in, a validated task out.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use syringe_core::since::Since;

use crate::actions::{ActRequest, DriverTool, KillWords, Once, ResetWords};
use crate::section::SectionName;
use crate::words::{Command, Opt, Refusal, Table, Words};

const FACTS: Opt =
    Opt { name: "facts", value: Some("FILE"), about: "Replay a saved report in place of reading hardware" };
const NVML: Opt = Opt {
    name: "nvml-library",
    value: Some("PATH"),
    about: "The NVML library to open, in place of the search for it (NODE_PROBE_NVML_LIBRARY)",
};
const ROOT: Opt = Opt {
    name: "root",
    value: Some("DIR"),
    about: "Read a saved tree (etc, proc, sys, dev in it) in place of the host",
};
const TIMEOUT: Opt = Opt {
    name: "timeout-ms",
    value: Some("MS"),
    about: "Give up on what has not answered by then: 100 to 60000, by default 8000",
};
const OPERATOR: Opt = Opt { name: "operator", value: None, about: "Allow kill and reset, which change the node" };

const SINCE: Opt = Opt {
    name: "since",
    value: Some("WHEN"),
    about: "Only events that ended after this: 24h, 7d, or an RFC 3339 time",
};
const KERNEL_LOG: Opt = Opt {
    name: "kernel-log",
    value: Some("FILE"),
    about: "Read a saved log (/dev/kmsg records, dmesg, journal lines; - for standard input)",
};
const CONTAINER: Opt = Opt {
    name: "container",
    value: Some("ID"),
    about: "Also say what this container can open (its runtime's id, 64 hex digits)",
};
const GPU: Opt = Opt { name: "gpu", value: Some("UUID"), about: "The GPU" };
const PLAN: Opt = Opt { name: "plan", value: None, about: "Check everything, say what would be done, and do nothing" };
const ONCE: Opt =
    Opt { name: "once", value: Some("ID"), about: "Refuse when an action of this id was run in this container before" };

const fn section(name: &'static str, about: &'static str) -> Command {
    Command { name, about: Some(about), options: &[], operand: None }
}

const TABLE: Table = Table {
    program: "node-probe",
    version: crate::VERSION,
    about: "Reads the GPUs of this node, prints one JSON document on standard output and exits.\n\n\
            Exit status: 0 answered (also in part), 1 nothing could be read, 2 wrong usage; the document is printed in \
            each case.",
    everywhere: &[FACTS, NVML, ROOT, TIMEOUT, OPERATOR],
    commands: &[
        section("inventory", "What the GPUs are: model, UUID, serial, firmware, driver, limits"),
        section("telemetry", "What the GPUs do now: temperature, power, clocks, utilization, throttling"),
        section("topology", "How GPUs, NVLinks, NVSwitches, NICs and CPUs are connected"),
        section("ecc", "Memory errors and repairs"),
        section("processes", "Who uses the GPUs, with pod and container"),
        section("mig", "MIG mode and instances"),
        section("kubelet", "Which device the kubelet gave to which container"),
        Command {
            name: "host",
            about: Some("Driver, modules, device nodes, PCI, daemons"),
            options: &[CONTAINER],
            operand: None,
        },
        Command {
            name: "xid",
            about: Some("What the kernel said about GPUs: Xid and other events"),
            options: &[SINCE, KERNEL_LOG],
            operand: None,
        },
        section("health", "A score per GPU and for the node, each point lost explained"),
        Command {
            name: "all",
            about: Some("Every section in one pass"),
            options: &[SINCE, KERNEL_LOG, CONTAINER],
            operand: None,
        },
        Command {
            name: "read",
            about: Some("The named sections in one pass: inventory,kubelet,processes"),
            options: &[CONTAINER],
            operand: Some("SECTIONS"),
        },
        Command {
            name: "kill",
            about: Some("End a process that uses a GPU (needs --operator)"),
            options: &[
                GPU,
                Opt { name: "pid", value: Some("N"), about: "The process" },
                Opt {
                    name: "start-ticks",
                    value: Some("TICKS"),
                    about: "Its start_ticks as the processes section reported them",
                },
                Opt {
                    name: "grace-seconds",
                    value: Some("SECONDS"),
                    about: "Time between SIGTERM and SIGKILL: 1 to 60, by default 10",
                },
                PLAN,
                ONCE,
            ],
            operand: None,
        },
        Command {
            name: "reset",
            about: Some("Reset a GPU (needs --operator)"),
            options: &[
                GPU,
                PLAN,
                Opt { name: "cordoned", value: None, about: "The node is cordoned: Kubernetes gives it no new pods" },
                Opt {
                    name: "drain-check",
                    value: Some("on|off"),
                    about: "Whether a node that takes pods, and pods that have the GPU, are in the way",
                },
                Opt {
                    name: "reset-seconds",
                    value: Some("SECONDS"),
                    about: "Time for nvidia-smi: 1 to 600, by default 300; what is not done then is not known",
                },
                ONCE,
            ],
            operand: None,
        },
        Command {
            name: "hold",
            about: Some("Do nothing for a while: the main process of the probe's container"),
            options: &[
                Opt {
                    name: "seconds",
                    value: Some("SECONDS"),
                    about: "How long before it ends by itself: 1 to 3600, by default 120",
                },
                Opt {
                    name: "releasable",
                    value: None,
                    about: "End early when node-probe release is run in the same container",
                },
            ],
            operand: None,
        },
        section("release", "End the releasable hold of this container"),
        // What this program starts itself, in the host's root.
        Command {
            name: "host-journal",
            about: None,
            options: &[Opt { name: "since", value: Some("SECONDS"), about: "Start of the window, seconds since 1970" }],
            operand: Some("ROOT"),
        },
        Command {
            name: "device-access",
            about: None,
            options: &[
                Opt { name: "theirs", value: Some("FILE"), about: "cgroup.procs of a container" },
                Opt { name: "ours", value: Some("FILE"), about: "cgroup.procs of the probe" },
                Opt { name: "folder", value: Some("DIR"), about: "The container's /dev" },
                Opt { name: "names", value: Some("NAMES"), about: "Device files in it, with commas between" },
            ],
            operand: None,
        },
        Command {
            name: "driver-tool",
            about: None,
            options: &[
                Opt { name: "driver-root", value: Some("DIR"), about: "Root directory of the driver" },
                Opt { name: "program", value: Some("PATH"), about: "nvidia-smi below that root" },
                Opt { name: "library-path", value: Some("PATH"), about: "Folder of the driver's libraries" },
                GPU,
                Opt { name: "job", value: Some("JOB"), about: "What to do" },
            ],
            operand: None,
        },
    ],
};

/// What a run has to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Read sections and print the report.
    Read(Request),
    /// Change something on the node and print the report of that.
    Act(Box<ActRequest>),
    /// Become the driver's own tool; the second half says whether that is allowed.
    DriverTool(DriverTool, bool),
    /// Wait, then end.
    Hold(Hold),
    /// End another process's wait.
    Release,
    /// Become the host's journalctl.
    HostJournal(HostJournal),
    /// Say what a container can open.
    DeviceAccess(DeviceAccess),
}

/// How long to hold.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Time before it ends by itself.
    pub(crate) seconds: u64,
    /// Whether `release` can end it early.
    pub(crate) releasable: bool,
}

/// Where the host's journal is, and from when on it is read.
#[derive(Debug)]
pub(crate) struct HostJournal {
    /// The host's root.
    pub(crate) root: PathBuf,
    /// Start of the window, seconds since 1970.
    pub(crate) since: i64,
}

/// Which devices to ask for, and where.
#[derive(Debug)]
pub(crate) struct DeviceAccess {
    /// `cgroup.procs` of the container.
    pub(crate) theirs: PathBuf,
    /// `cgroup.procs` of the probe.
    pub(crate) ours: PathBuf,
    /// The container's `/dev`.
    pub(crate) folder: PathBuf,
    /// Device files in it, with commas between them.
    pub(crate) names: String,
}

/// A validated request for a report.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The sections to print.
    pub(crate) sections: Vec<SectionName>,
    /// Start of the window for kernel events.
    pub(crate) since: Option<Since>,
    /// A saved kernel log.
    pub(crate) kernel_log: Option<PathBuf>,
    /// A facts file.
    pub(crate) facts: Option<PathBuf>,
    /// A named NVML library.
    pub(crate) nvml_library: Option<PathBuf>,
    /// A root other than the host's.
    pub(crate) root: Option<PathBuf>,
    /// A container to look into.
    pub(crate) container: Option<String>,
    /// Time for everything.
    pub(crate) timeout: Duration,
}

impl Request {
    /// The same node, read for an action: these sections, whole.
    pub(crate) fn of(&self, sections: Vec<SectionName>) -> Self {
        Self { sections, since: None, kernel_log: None, container: None, ..self.clone() }
    }
}

/// The task that these words ask for (without the program's name).
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Task, Refusal> {
    let words = TABLE.read(args)?;
    let operator = words.switch("operator");
    let once = || Ok::<_, Refusal>(Once { id: words.value::<OnceId>("once")?.map(|id| id.0) });
    Ok(match words.command {
        "hold" => {
            Task::Hold(Hold { seconds: words.number("seconds", 120, 1, 3600)?, releasable: words.switch("releasable") })
        }
        "release" => Task::Release,
        "host-journal" => Task::HostJournal(HostJournal {
            root: words.operand().ok_or_else(|| Refusal::Wrong("host-journal needs ROOT".into()))?.into(),
            since: words.needed("since")?,
        }),
        "device-access" => Task::DeviceAccess(DeviceAccess {
            theirs: words.needed("theirs")?,
            ours: words.needed("ours")?,
            folder: words.needed("folder")?,
            names: words.needed("names")?,
        }),
        "driver-tool" => {
            let tool = DriverTool {
                root: words.needed("driver-root")?,
                program: words.needed("program")?,
                library_path: words.value("library-path")?,
                gpu: words.needed::<GpuUuid>("gpu")?.0,
                job: words.needed("job")?,
            };
            Task::DriverTool(tool, operator)
        }
        "kill" => {
            let kill = KillWords {
                gpu: words.needed::<GpuUuid>("gpu")?.0,
                pid: words.needed("pid")?,
                start_ticks: words.needed("start-ticks")?,
                grace_seconds: words.number("grace-seconds", 10, 1, 60)?,
                plan: words.switch("plan"),
                once: once()?,
            };
            Task::Act(Box::new(ActRequest::kill(kill, operator, request(&words, Vec::new())?)))
        }
        "reset" => {
            let reset = ResetWords {
                gpu: words.needed::<GpuUuid>("gpu")?.0,
                plan: words.switch("plan"),
                cordoned: words.switch("cordoned"),
                drain_check: words.value("drain-check")?.unwrap_or_default(),
                reset_seconds: words.number("reset-seconds", 300, 1, 600)?,
                once: once()?,
            };
            Task::Act(Box::new(ActRequest::reset(reset, operator, request(&words, Vec::new())?)))
        }
        "all" => Task::Read(request(&words, SectionName::ALL.to_vec())?),
        "read" => {
            let list = words.operand().ok_or_else(|| Refusal::Wrong("read needs the names of sections".into()))?;
            let sections: Result<Vec<_>, _> = list.split(',').map(section_named).collect();
            Task::Read(request(&words, sections?)?)
        }
        name => Task::Read(request(&words, vec![section_named(name)?])?),
    })
}

fn request(words: &Words, sections: Vec<SectionName>) -> Result<Request, Refusal> {
    let library = std::env::var_os("NODE_PROBE_NVML_LIBRARY").filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(Request {
        sections,
        since: words.value("since")?,
        kernel_log: words.path("kernel-log"),
        facts: words.path("facts"),
        nvml_library: words.path("nvml-library").or(library),
        root: words.path("root"),
        container: words.value::<ContainerId>("container")?.map(|id| id.0),
        timeout: Duration::from_millis(words.number("timeout-ms", 8000, 100, 60_000)?),
    })
}

fn section_named(word: &str) -> Result<SectionName, Refusal> {
    SectionName::ALL.into_iter().find(|name| name.word() == word).ok_or_else(|| {
        let known = SectionName::ALL.map(SectionName::word).join(", ");
        Refusal::Wrong(format!("there is no section '{word}'; there are: {known}"))
    })
}

/// `GPU-…`, nothing that could be an option of another program.
struct GpuUuid(String);

/// Longest GPU UUID that is taken; NVIDIA's have 40 characters, those of MIG devices up to 60.
const LONGEST_UUID: usize = 80;

impl FromStr for GpuUuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let known = text.starts_with("GPU-") || text.starts_with("MIG-");
        if known && text.len() <= LONGEST_UUID && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err("a GPU UUID looks like GPU-5b2c0a4e-….")
    }
}

/// The runtime's id of a container.
struct ContainerId(String);

impl FromStr for ContainerId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if plain { Ok(Self(text.to_ascii_lowercase())) } else { Err("64 hex digits, without the runtime's name") }
    }
}

/// Letters and digits: it becomes a file's name.
struct OnceId(String);

impl FromStr for OnceId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = !text.is_empty() && text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain { Ok(Self(text.to_owned())) } else { Err("letters and digits, 40 at most") }
    }
}
